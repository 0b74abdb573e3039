//! Gives away the files of a folder, to `file_client`.
//!
//! `cargo run --example file_server some/folder 127.0.0.1:1234`
//!
//! ```text
//!   client               server
//!     LIST            ->
//!                     <-  FILES 2
//!                     <-  1048576 photo.png
//!                     <-  12 notes.txt
//!     GET 4096 photo.png
//!                     ->
//!                     <-  SEND 1048576       the size; the bytes from 4096 on follow
//!                     <-  (bytes)
//!                     <-  SHA256 9f86d0...   of the whole file
//!                     <-  ERROR what is wrong, instead of any of these
//! ```

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use sha2::{Digest, Sha256};
use warren::hub::fs::{self, File};
use warren::hub::sync::Event;
use warren::hub::{run, spawn};
use warren::reactor::protocols::{LineProtocol, LineReceiver, LineTransport};
use warren::reactor::{Consumer, PeerAddr, Producer, Protocol, Reason, listen_tcp};

/// What is read of a file at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// One connection.
struct FileServer {
    folder: Rc<Path>,
}

impl LineProtocol for FileServer {
    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        // A disk may take its time, and a protocol must not wait. A fiber may.
        transport.pause_reading();
        let (transport, folder) = (transport.clone(), self.folder.clone());
        spawn(move || {
            let answered = answer(&transport, &folder, &line);
            if let Err(text) = answered {
                transport.send_line(format!("ERROR {text}").as_bytes());
            }
            // The next request, which may be here already.
            transport.resume_reading();
        });
    }

    fn connection_lost(&mut self, reason: &Reason) {
        println!("a client has gone: {reason}");
    }
}

/// Does what a line asks for.
fn answer(transport: &LineTransport, folder: &Path, line: &str) -> Result<(), String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "LIST" => {
            let files = list(folder).map_err(|error| format!("cannot look: {error}"))?;
            transport.send_line(format!("FILES {}", files.len()).as_bytes());
            for (size, name) in files {
                transport.send_line(format!("{size} {name}").as_bytes());
            }
            Ok(())
        }
        "GET" => {
            let parts = rest.split_once(' ');
            let parts = parts.and_then(|(offset, name)| Some((offset.parse().ok()?, name)));
            let (offset, name) = parts.ok_or("what is wanted is: GET offset name")?;
            send(transport, folder, name, offset)
        }
        _ => Err(format!("there are LIST and GET, but not {word}")),
    }
}

/// The files that can be had: plain ones with plain names. No folders, no links, nothing hidden.
fn list(folder: &Path) -> io::Result<Vec<(u64, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_plain(name)) else { continue };
        if entry.file_type().is_file() {
            files.push((entry.metadata()?.len(), name.to_owned()));
        }
    }
    files.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(files)
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && !name.contains('/') && !name.contains(char::is_control)
}

/// Sends a file from `offset` on, and its digest.
fn send(transport: &LineTransport, folder: &Path, name: &str, offset: u64) -> Result<(), String> {
    // Only what is in the listing is given away: a name such as ../../etc/passwd never is.
    let files = list(folder).map_err(|error| format!("cannot look: {error}"))?;
    if !files.iter().any(|(_, listed)| listed == name) {
        return Err(format!("there is no file {name}"));
    }
    let file = File::open(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
    let size = file.metadata().map_err(|error| format!("{name}: {error}"))?.len();
    if size < offset {
        return Err(format!("{name} has {size} bytes, and none from {offset} on"));
    }
    println!("sending {name} from byte {offset} of {size}");
    transport.send_line(format!("SEND {size}").as_bytes());
    let gate = Rc::new(Gate { open: Event::new(), stopped: Cell::new(false) });
    gate.open.set();
    transport.register_producer(gate.clone(), true);
    let sent = send_bytes(transport, &file, size, offset, &gate);
    match sent {
        Ok(digest) => transport.send_line(format!("SHA256 {digest}").as_bytes()),
        // In the middle of bytes nothing else can be said.
        Err(error) => {
            eprintln!("{name}: {error}");
            transport.abort_connection();
        }
    }
    transport.unregister_producer();
    Ok(())
}

/// Reads the whole file for its digest, and writes what is wanted of it as fast as the client takes it.
fn send_bytes(
    transport: &LineTransport,
    file: &File,
    size: u64,
    offset: u64,
    gate: &Gate,
) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut read = 0;
    while read < size && !gate.stopped.get() {
        let wanted = piece.len().min(usize::try_from(size - read).unwrap_or(usize::MAX));
        let piece = &mut piece[..wanted];
        file.read_exact_at(piece, read)?;
        digest.update(&*piece);
        let skipped = offset.saturating_sub(read).min(wanted as u64) as usize;
        transport.write(&piece[skipped..]);
        read += wanted as u64;
        // While more waits than the client has taken, so does this fiber.
        gate.open.wait();
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Lets the transport hold back the fiber that writes.
struct Gate {
    open: Event,
    stopped: Cell<bool>,
}

impl Producer for Gate {
    fn pause_producing(&self) {
        self.open.clear();
    }

    fn resume_producing(&self) {
        self.open.set();
    }

    fn stop_producing(&self) {
        self.stopped.set(true);
        self.open.set();
    }
}

fn serve(folder: PathBuf, addr: &str) -> Result<(), String> {
    let parsed =
        addr.parse().map_err(|_| format!("{addr} is no address such as 127.0.0.1:1234"))?;
    list(&folder).map_err(|error| format!("cannot give away {}: {error}", folder.display()))?;
    let folder = Rc::<Path>::from(folder);
    let factory = move |_peer: &PeerAddr| {
        let server = FileServer { folder: folder.clone() };
        Some(Box::new(LineReceiver::new(server)) as Box<dyn Protocol>)
    };
    let port = listen_tcp(parsed, Box::new(factory))
        .map_err(|error| format!("cannot listen on {addr}: {error}; is it running already?"))?;
    println!("listening on {}", port.addr());
    Event::new().wait();
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        eprintln!("which folder? Such as: file_server some/folder 127.0.0.1:1234");
        return ExitCode::FAILURE;
    };
    let addr = arguments.next().unwrap_or_else(|| "127.0.0.1:1234".into());
    match run(move || serve(folder.into(), &addr)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
