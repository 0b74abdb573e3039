//! The server at the other end of a control socket.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;
use warren_broker::admin::{Request, only_here};

use super::output;
use crate::client::print;
use crate::serve::{CONTROL, default_data_dir};

/// Which server.
#[derive(Args, Clone, Default)]
pub(crate) struct Server {
    /// The server's data directory [default: the user's state folder]
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// The server's control socket, where it is elsewhere
    #[arg(long, value_name = "PATH", env = "WARREN_CONTROL", global = true)]
    control: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Server {
    /// Asks the server.
    pub(super) fn ask(&self, request: &Request) -> Result<Value> {
        let path = self.control.clone().unwrap_or_else(|| {
            self.data_dir.clone().unwrap_or_else(default_data_dir).join(CONTROL)
        });
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
                "no server runs with the control socket {}: start one with `warren serve`, or name the folder of one that \
                 runs with --data-dir",
                path.display()
            ),
            ErrorKind::PermissionDenied => anyhow!(
                "the control socket {} is another user's: be the one whose process the server is, or root",
                path.display()
            ),
            _ => anyhow!("cannot connect to {}: {error}", path.display()),
        })?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let broken = || format!("the server at {} has left", path.display());
        (&stream).write_all(line.as_bytes()).with_context(broken)?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).with_context(broken)?;
        if answer.is_empty() {
            bail!("the server at {} refuses this user: be its owner or root", path.display());
        }
        let mut answer: Value = serde_json::from_str(&answer).with_context(broken)?;
        if let Some(error) = answer["error"]["text"].as_str() {
            bail!("{error}");
        }
        Ok(answer["ok"].take())
    }

    /// Asks, and prints the answer.
    pub(super) fn show(&self, request: &Request, columns: &[&str]) -> Result<()> {
        let answer = self.ask(request)?;
        if self.json {
            print(serde_json::to_string_pretty(&answer)?.as_bytes())?;
            return Ok(());
        }
        output::print_answer(&answer, columns, true)
    }

    /// Writes definitions to a file, which is its owner's: there are password hashes in it.
    pub(super) fn export(&self, vhost: Option<String>, file: Option<PathBuf>) -> Result<()> {
        let definitions = self.ask(&Request::ExportDefinitions { vhost })?;
        let text = serde_json::to_string_pretty(&definitions)?;
        match file.filter(|file| file.as_os_str() != "-") {
            None => drop(print(text.as_bytes())?),
            Some(file) => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                options
                    .open(&file)
                    .and_then(|mut out| out.write_all(text.as_bytes()))
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        let users = only_here(&definitions);
        if !users.is_empty() {
            eprintln!(
                "RabbitMQ cannot check the passwords of: {}. Set them there again, or here after \
                 starting the server with --password-hashing rabbitmq.",
                users.join(", ")
            );
        }
        Ok(())
    }

    /// Takes definitions in.
    pub(super) fn import(&self, vhost: Option<String>, file: Option<PathBuf>) -> Result<()> {
        let mut text = String::new();
        let from = match file.filter(|file| file.as_os_str() != "-") {
            None => {
                std::io::stdin().read_to_string(&mut text)?;
                "standard input".to_owned()
            }
            Some(file) => {
                text = std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                file.display().to_string()
            }
        };
        let definitions: Value = serde_json::from_str(&text)
            .with_context(|| format!("there are no definitions in {from}"))?;
        if !definitions.is_object() {
            bail!(
                "there are no definitions in {from}: they are one JSON object with lists such as \"queues\""
            );
        }
        self.show(&Request::ImportDefinitions { vhost, definitions }, &[])
    }
}
