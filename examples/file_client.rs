//! Fetches a file from `file_server`: shows what there is, asks which, and goes on where it was cut off.
//!
//! `cargo run --example file_client 127.0.0.1:1234`, or with a name, and a folder to put it in:
//! `... 127.0.0.1:1234 photo.png downloads`.
//!
//! The protocol on the loop only cuts lines and bytes out of the stream and puts them into a queue; the story is told by a
//! fiber that takes them out. What has come lies in `photo.png.part` until its digest is known to be right.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use warren::hub::fs::{self, File, OpenOptions};
use warren::hub::sync::Queue;
use warren::hub::{offload, run, sleep};
use warren::reactor::protocols::{LineProtocol, LineReceiver, LineTransport};
use warren::reactor::{ClientFactory, Connector, Factory, PeerAddr, Protocol, Reason, connect_tcp};

/// How often it is tried again before any byte more has come.
const TRIES: u32 = 5;
/// Pieces that may wait for the disk. While there are more, the server is held back.
const PIECES_MAX: usize = 32;

/// What the fiber hears of the connection.
enum Heard {
    Made(LineTransport),
    Line(String),
    Bytes(Vec<u8>),
    Lost(String),
}

/// What the protocol and the fiber share.
struct Shared {
    heard: Queue<Heard>,
    /// From where on the file is sent.
    offset: Cell<u64>,
}

/// One connection.
struct FileClient {
    shared: Rc<Shared>,
    /// Bytes of the file that are still to come.
    left: u64,
}

impl FileClient {
    fn tell(&self, what: Heard) {
        let _ = self.shared.heard.put(what);
    }
}

impl LineProtocol for FileClient {
    fn connection_made(&mut self, transport: &LineTransport) {
        self.tell(Heard::Made(transport.clone()));
    }

    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        if let Some(size) = line.strip_prefix("SEND ").and_then(|size| size.parse::<u64>().ok()) {
            self.left = size.saturating_sub(self.shared.offset.get());
            if self.left > 0 {
                transport.set_raw_mode();
            }
        }
        self.tell(Heard::Line(line));
    }

    fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
        let count = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (bytes, rest) = data.split_at(count);
        self.left -= count as u64;
        self.tell(Heard::Bytes(bytes.to_vec()));
        if self.left == 0 {
            transport.set_line_mode(rest);
        } else if PIECES_MAX < self.shared.heard.len() {
            transport.pause_reading();
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.tell(Heard::Lost(reason.to_string()));
    }
}

struct FileFactory(Rc<Shared>);

impl Factory for FileFactory {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let client = FileClient { shared: self.0.clone(), left: 0 };
        Some(Box::new(LineReceiver::new(client)))
    }
}

impl ClientFactory for FileFactory {
    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        let text = format!("cannot connect to {}: {reason}", connector.destination());
        let _ = self.0.heard.put(Heard::Lost(text));
    }
}

/// Why something has come to nothing.
enum Failure {
    /// The connection is gone: another may do.
    Cut(String),
    /// What has been kept is not the beginning of the file.
    Damaged,
    /// It cannot be helped.
    Final(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Final(error.to_string())
    }
}

/// A connection as the fiber sees it: it asks, and waits for answers.
struct Session {
    shared: Rc<Shared>,
    transport: LineTransport,
}

impl Session {
    fn connect(addr: &str) -> Result<Self, Failure> {
        let text = || Failure::Final(format!("{addr} is no address such as 127.0.0.1:1234"));
        let addr = addr.parse().map_err(|_| text())?;
        let shared = Rc::new(Shared { heard: Queue::unbounded(), offset: Cell::new(0) });
        connect_tcp(addr, Box::new(FileFactory(shared.clone())));
        match shared.heard.get() {
            Ok(Heard::Made(transport)) => Ok(Self { shared, transport }),
            Ok(Heard::Lost(text)) => Err(Failure::Cut(format!("{text}; is file_server running?"))),
            _ => Err(Failure::Final("the connection began with something else".into())),
        }
    }

    fn next(&self) -> Result<Heard, Failure> {
        let heard = self.shared.heard.get().map_err(|error| Failure::Final(error.to_string()))?;
        if self.shared.heard.len() < PIECES_MAX / 2 {
            self.transport.resume_reading();
        }
        match heard {
            Heard::Lost(reason) => Err(Failure::Cut(reason)),
            heard => Ok(heard),
        }
    }

    /// The rest of a line that begins with `word`.
    fn line(&self, word: &str) -> Result<String, Failure> {
        match self.next()? {
            Heard::Line(line) => match (line.strip_prefix(word), line.strip_prefix("ERROR ")) {
                (Some(rest), _) => Ok(rest.trim_start().to_owned()),
                (None, Some(error)) => Err(Failure::Final(format!("the server says: {error}"))),
                _ => Err(Failure::Final(format!("the server says {line}, and not {word}"))),
            },
            _ => Err(Failure::Final("the server sends bytes that nobody has asked for".into())),
        }
    }

    /// What there is: sizes and names.
    fn list(&self) -> Result<Vec<(u64, String)>, Failure> {
        self.transport.send_line(b"LIST");
        let strange = || Failure::Final("the server's listing makes no sense".into());
        let count: u64 = self.line("FILES")?.parse().map_err(|_| strange())?;
        let mut files = Vec::new();
        for _ in 0..count {
            let line = self.line("")?;
            let (size, name) = line.split_once(' ').ok_or_else(strange)?;
            files.push((size.parse().map_err(|_| strange())?, name.to_owned()));
        }
        Ok(files)
    }

    /// Fetches what is missing in `part`, and compares digests.
    fn fetch(&self, name: &str, part: &Path) -> Result<(), Failure> {
        let files = self.list()?;
        let listed = files.iter().find(|(_, listed)| listed == name);
        let size = listed.ok_or_else(|| Failure::Final(format!("the server has no {name}")))?.0;
        let file = OpenOptions::new().read(true).write(true).create(true).open(part)?;
        let mut digest = Sha256::new();
        let mut offset = digest_of_part(&file, &mut digest)?;
        if size < offset {
            return Err(Failure::Damaged);
        }
        if offset > 0 {
            eprintln!("{offset} of {size} bytes are here already");
        }
        let begun = offset;
        self.shared.offset.set(offset);
        self.transport.send_line(format!("GET {offset} {name}").as_bytes());
        // It may have grown since it was listed.
        let strange = |_| Failure::Final("the server does not say how much it sends".into());
        let size = self.line("SEND")?.parse().map_err(strange)?;
        let mut bar = Bar { size, shown: u64::MAX };
        bar.show(offset);
        while offset < size {
            let Heard::Bytes(bytes) = self.next()? else {
                return Err(Failure::Final("the server has said something in between".into()));
            };
            file.write_all_at(&bytes, offset)?;
            digest.update(&bytes);
            offset += bytes.len() as u64;
            bar.show(offset);
        }
        let ours: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if self.line("SHA256")? == ours {
            file.sync_all()?;
            println!("SHA-256 {ours}");
            Ok(())
        } else if begun > 0 {
            Err(Failure::Damaged)
        } else {
            Err(Failure::Final("what has come is not what the server has: try again".into()))
        }
    }
}

/// How much has been kept.
fn digest_of_part(file: &File, digest: &mut Sha256) -> io::Result<u64> {
    let mut piece = vec![0; 64 * 1024];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset)? {
            0 => return Ok(offset),
            count => {
                digest.update(&piece[..count]);
                offset += count as u64;
            }
        }
    }
}

/// A progress bar, drawn anew for each per cent.
struct Bar {
    size: u64,
    shown: u64,
}

impl Bar {
    fn show(&mut self, done: u64) {
        let percent = (done * 100).checked_div(self.size).unwrap_or(100);
        if percent == self.shown {
            return;
        }
        self.shown = percent;
        let filled = (percent / 4) as usize;
        let end = if done == self.size { "\n" } else { "" };
        eprint!("\r[{:-<25}] {percent:3} % of {} bytes{end}", "#".repeat(filled), self.size);
        let _ = io::stderr().flush();
    }
}

/// Fetches `name` into `folder`, by as many connections as it takes.
fn fetch(addr: &str, name: &str, folder: &Path) -> Result<PathBuf, String> {
    // It may come from the server's listing, which could say anything.
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(format!("{name} is not the name of a file here"));
    }
    let part = folder.join(format!("{name}.part"));
    let kept = || fs::metadata(&part).map_or(0, |data| data.len());
    let (mut tries, mut before, mut connected) = (0, kept(), false);
    loop {
        let session = Session::connect(addr);
        let fetched = session.and_then(|session| {
            connected = true;
            let fetched = session.fetch(name, &part);
            session.transport.lose_connection();
            fetched
        });
        match fetched {
            Ok(()) => {
                let path = folder.join(name);
                fs::rename(&part, &path).map_err(|error| error.to_string())?;
                return Ok(path);
            }
            Err(Failure::Damaged) => {
                eprintln!("the partial file was damaged: fetching all of {name}");
                fs::remove_file(&part).map_err(|error| error.to_string())?;
            }
            Err(Failure::Cut(reason)) if !connected => return Err(reason),
            Err(Failure::Cut(reason)) => {
                let now = kept();
                tries = if before < now { 1 } else { tries + 1 };
                before = now;
                if tries >= TRIES {
                    return Err(format!("given up after {TRIES} tries: {reason}"));
                }
                eprintln!("\ncut off after {now} bytes ({reason}); going on");
                sleep(Duration::from_millis(100) * tries);
            }
            Err(Failure::Final(text)) => return Err(text),
        }
    }
}

/// Shows what there is, and asks.
fn choose(addr: &str) -> Result<String, Failure> {
    let session = Session::connect(addr)?;
    let files = session.list()?;
    session.transport.lose_connection();
    for (number, (size, name)) in files.iter().enumerate() {
        println!("{:3}  {size:>12}  {name}", number + 1);
    }
    print!("which one? ");
    io::stdout().flush()?;
    // The keyboard blocks, so it is another thread that waits for it.
    let line = offload(|| io::stdin().lines().next()).transpose()?;
    let line = line.ok_or_else(|| Failure::Final("nothing was chosen".into()))?;
    let number = line.trim().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    match number.and_then(|number| files.get(number)) {
        Some((_, name)) => Ok(name.clone()),
        None => Ok(line.trim().to_owned()),
    }
}

fn get(addr: &str, name: Option<String>, folder: &Path) -> Result<PathBuf, String> {
    let name = match name.map_or_else(|| choose(addr), Ok) {
        Ok(name) => name,
        Err(Failure::Cut(text) | Failure::Final(text)) => return Err(text),
        Err(Failure::Damaged) => unreachable!("nothing has been fetched yet"),
    };
    fetch(addr, &name, folder)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or_else(|| "127.0.0.1:1234".into());
    let name = arguments.next();
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    match run(move || get(&addr, name, &folder)) {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
