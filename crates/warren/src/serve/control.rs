//! The control socket: requests of `warren users`, `warren ctl` and the like, one JSON object a line.
//!
//! ```text
//!   {"op": "list_users"}                                         -->
//!   <-- {"ok": [...]}   or   {"error": {"kind": "not_found", "text": "..."}}
//! ```
//! No password is asked: who may connect is the owner of the process, or root. The file's mode says so, and so does
//! the kernel, which names the user at the other end.

use std::cell::Cell;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde_json::{Value, json};
use warren_broker::Admin;
use warren_broker::admin::{AdminError, Request};
use warren_hub::net::{UnixListener, UnixStream};

/// Definitions of a large broker come in one line.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Programs that may be connected at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a program may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a failed accept is left alone: most often, no descriptor is left.
const RETRY: Duration = Duration::from_millis(100);

/// Listens until it is dropped, when the file goes too.
pub(super) struct Control {
    path: PathBuf,
}

impl Control {
    /// Listens on `path`. What a server that is gone has left there is replaced.
    pub(super) fn listen(path: &Path, admin: Admin) -> Result<Self> {
        let failed = || format!("cannot listen on the control socket {}", path.display());
        clear_away(path).with_context(failed)?;
        let listener = UnixListener::bind(path).with_context(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(failed)?;
        warren_hub::spawn_raw(move || accept(&listener, &admin));
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes the socket of a server that does not run any more; anything else stays.
fn clear_away(path: &Path) -> Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        bail!("there is a file in its place that is no socket");
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another server listens there");
    }
    Ok(std::fs::remove_file(path)?)
}

fn accept(listener: &UnixListener, admin: &Admin) {
    let open = Rc::new(Cell::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                warren_hub::sleep(RETRY);
                continue;
            }
        };
        if !may_connect(&stream) || CONNECTIONS_MAX <= open.get() {
            continue;
        }
        let (open, admin) = (open.clone(), admin.clone());
        open.set(open.get() + 1);
        warren_hub::spawn_raw(move || {
            if let Err(error) = converse(stream, &admin) {
                tracing::debug!(%error, "a control connection has ended");
            }
            open.set(open.get() - 1);
        });
    }
}

fn may_connect(stream: &UnixStream) -> bool {
    match socket_peercred(stream) {
        Ok(peer) if peer.uid == geteuid() || peer.uid.is_root() => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid.as_raw(),
                "another user was refused at the control socket"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "who is at the control socket cannot be told");
            false
        }
    }
}

fn converse(stream: UnixStream, admin: &Admin) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SILENCE));
    stream.set_write_timeout(Some(SILENCE));
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut requests).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let answer = if whole {
            Request::parse(&line).and_then(|request| admin.ask(request))
        } else if (line.len() as u64) < LINE_BYTES_MAX {
            // It has left in the middle of a line: nothing half is done.
            return Ok(());
        } else {
            Err(AdminError::Invalid(format!("a request has more than {LINE_BYTES_MAX} bytes")))
        };
        let mut answer = to_json(answer).to_string();
        answer.push('\n');
        answers.write_all(answer.as_bytes())?;
        if !whole {
            return Ok(());
        }
    }
}

fn to_json(answer: Result<Value, AdminError>) -> Value {
    match answer {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({"error": {"kind": error.kind(), "text": error.to_string()}}),
    }
}
