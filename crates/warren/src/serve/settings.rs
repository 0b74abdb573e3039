//! Settings: from the command line, else the environment, else the file, else the defaults.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::Deserialize;

use super::default_data_dir;
use super::listener::Listener;

/// What the command line and the environment say.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Listen here: amqp://HOST:PORT or unix:/PATH; may be repeated; port 0 takes a free one
    /// [default: amqp://127.0.0.1:5672]
    #[arg(long, value_name = "URL", env = "WARREN_LISTEN", value_delimiter = ',')]
    listen: Vec<Listener>,
    /// Keep durable queues and persistent messages in this folder; `none` keeps nothing
    /// [default: the user's state folder]
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Log to standard error: error, warn, info, debug, trace or off [default: info]
    #[arg(long, value_name = "LEVEL", env = "WARREN_LOG")]
    log: Option<String>,
    /// Read settings from this TOML file: the same keys, `listen` as a list
    #[arg(long, value_name = "FILE", env = "WARREN_CONFIG")]
    config: Option<PathBuf>,
}

/// What the file says.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    listen: Vec<String>,
    data_dir: Option<PathBuf>,
    log: Option<String>,
}

/// What holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<Listener>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) log: String,
}

impl Settings {
    pub(crate) fn load(options: Options) -> Result<Self> {
        let file = match &options.config {
            Some(path) => read(path).with_context(|| format!("cannot use {}", path.display()))?,
            None => File::default(),
        };
        let mut listen = options.listen;
        if listen.is_empty() {
            listen = file
                .listen
                .iter()
                .map(|url| url.parse().map_err(|error: String| anyhow!("listen: {error}")))
                .collect::<Result<_>>()?;
        }
        if listen.is_empty() {
            listen = vec![Listener::Amqp("127.0.0.1".into(), 5672)];
        }
        let data_dir = options.data_dir.or(file.data_dir).unwrap_or_else(default_data_dir);
        Ok(Self {
            listen,
            data_dir: (data_dir != Path::new("none")).then_some(data_dir),
            log: options.log.or(file.log).unwrap_or_else(|| "info".into()),
        })
    }
}

fn read(path: &Path) -> Result<File> {
    Ok(toml::from_str(&std::fs::read_to_string(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::{Listener, Options, Settings};

    fn settings(file: &str, options: Options) -> anyhow::Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warren.toml");
        std::fs::write(&path, file).unwrap();
        Settings::load(Options { config: Some(path), ..options })
    }

    #[test]
    fn the_file_fills_in_what_the_command_line_leaves_open() {
        let file =
            "listen = ['amqp://[::1]:1', 'unix:/tmp/w']\ndata-dir = '/tmp/from-file'\nlog = 'warn'";
        let options = Options { data_dir: Some("/tmp/from-line".into()), ..Options::default() };
        let settings = settings(file, options).unwrap();
        let listen = vec![Listener::Amqp("::1".into(), 1), Listener::Unix("/tmp/w".into())];
        let data_dir = Some("/tmp/from-line".into());
        assert_eq!(settings, Settings { listen, data_dir, log: "warn".into() });
    }

    #[test]
    fn without_any_there_are_defaults() {
        let settings = settings("", Options::default()).unwrap();
        assert_eq!(settings.listen, [Listener::Amqp("127.0.0.1".into(), 5672)]);
        assert_eq!(settings.log, "info");
        assert!(settings.data_dir.is_some());
    }

    #[test]
    fn none_is_no_folder() {
        assert_eq!(settings("data-dir = 'none'", Options::default()).unwrap().data_dir, None);
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let error = settings("listn = []", Options::default()).unwrap_err();
        assert!(format!("{error:#}").contains("listn"), "{error:#}");
    }
}
