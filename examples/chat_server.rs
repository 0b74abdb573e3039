//! A chat with named users, a line each time: `/who` tells who is there, `/msg name text` is for one of them, `/quit` leaves.
//!
//! `cargo run --example chat_server 127.0.0.1:1234`, and for each user `nc 127.0.0.1 1234` or `telnet 127.0.0.1 1234`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::rc::Rc;

use warren::hub::run;
use warren::hub::sync::Event;
use warren::reactor::protocols::{LineProtocol, LineReceiver, LineTransport};
use warren::reactor::{PeerAddr, Protocol, Reason, listen_tcp};

const NAME_CHARS_MAX: usize = 20;
const LINE_BYTES_MAX: usize = 1000;
/// What may wait for a user who does not read. Then he is shown out, so that the others lose nothing but him.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// Who is there, by name in small letters: Ann and ann would be taken for one another.
///
/// All protocols of a hub run on one thread, so they share it without a lock.
#[derive(Default)]
struct Room {
    users: BTreeMap<String, User>,
}

struct User {
    name: String,
    transport: LineTransport,
}

impl Room {
    fn tell_all(&self, text: &str) {
        self.tell_all_but(None, text);
    }

    fn tell_all_but(&self, silent: Option<&str>, text: &str) {
        for (key, user) in &self.users {
            if Some(key.as_str()) != silent {
                tell(&user.transport, text);
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.users.values().map(|user| user.name.as_str()).collect();
        names.join(", ")
    }
}

/// Writing never waits: what the user's system does not take now is kept here, up to a limit.
fn tell(transport: &LineTransport, text: &str) {
    transport.send_line(text.as_bytes());
    if WAITING_BYTES_MAX < transport.buffered() {
        // Ends at the end of this turn, and never calls anybody from within.
        transport.abort_connection();
    }
}

/// One connection. It has a name once the user has given one that is free.
struct Chatter {
    room: Rc<RefCell<Room>>,
    name: Option<String>,
}

impl Chatter {
    fn key(&self) -> Option<String> {
        self.name.as_ref().map(|name| name.to_lowercase())
    }

    fn enter(&mut self, transport: &LineTransport, name: &str) {
        let letters = name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        if name.is_empty() || !letters || NAME_CHARS_MAX < name.chars().count() {
            let text = format!("A name has 1 to {NAME_CHARS_MAX} letters, digits or _. Yours?");
            return tell(transport, &text);
        }
        let mut room = self.room.borrow_mut();
        let key = name.to_lowercase();
        if room.users.contains_key(&key) {
            return tell(transport, &format!("{name} is taken. Another name?"));
        }
        room.tell_all(&format!("* {name} has joined"));
        let user = User { name: name.to_owned(), transport: transport.clone() };
        room.users.insert(key, user);
        tell(transport, &format!("Welcome, {name}. Here are: {}. /help tells more.", room.names()));
        self.name = Some(name.to_owned());
    }

    fn command(&self, transport: &LineTransport, name: &str, command: &str) {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        match word {
            "quit" => transport.lose_connection(),
            "who" => tell(transport, &format!("Here are: {}", self.room.borrow().names())),
            "msg" => self.message(transport, name, rest.trim()),
            "help" => tell(transport, "/who, /msg name text, /quit; all else is for everybody"),
            _ => tell(transport, &format!("There is no /{word}: /help tells what there is")),
        }
    }

    /// For one user only.
    fn message(&self, transport: &LineTransport, name: &str, rest: &str) {
        let Some((to, text)) = rest.split_once(' ') else {
            return tell(transport, "To whom, and what? /msg name text");
        };
        match self.room.borrow().users.get(&to.to_lowercase()) {
            Some(user) => tell(&user.transport, &format!("[{name}, to you] {text}")),
            None => tell(transport, &format!("{to} is not here: /who tells who is")),
        }
    }
}

impl LineProtocol for Chatter {
    fn connection_made(&mut self, transport: &LineTransport) {
        tell(transport, "What is your name?");
    }

    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        // Telnet ends lines with \r\n, nc with \n. Other control characters could do things to terminals.
        let text = String::from_utf8_lossy(line);
        let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
        let text = text.trim();
        let Some(name) = self.name.clone() else { return self.enter(transport, text) };
        if let Some(command) = text.strip_prefix('/') {
            self.command(transport, &name, command);
        } else if !text.is_empty() {
            let room = self.room.borrow();
            room.tell_all_but(self.key().as_deref(), &format!("<{name}> {text}"));
        }
    }

    fn line_length_exceeded(&mut self, transport: &LineTransport, _data: &[u8]) {
        tell(transport, &format!("A line has at most {LINE_BYTES_MAX} bytes. Good bye."));
        transport.lose_connection();
    }

    fn connection_lost(&mut self, reason: &Reason) {
        // Whatever ended it: here is where the user is forgotten.
        if let (Some(key), Some(name)) = (self.key(), &self.name) {
            let mut room = self.room.borrow_mut();
            room.users.remove(&key);
            let why = match reason {
                Reason::Aborted => " (too slow)",
                _ => "",
            };
            room.tell_all(&format!("* {name} has left{why}"));
        }
    }
}

fn serve(addr: &str) -> Result<(), String> {
    let parsed =
        addr.parse().map_err(|_| format!("{addr} is no address such as 127.0.0.1:1234"))?;
    let room = Rc::<RefCell<Room>>::default();
    let factory = move |_peer: &PeerAddr| {
        let chatter = Chatter { room: room.clone(), name: None };
        let lines = LineReceiver::new(chatter).delimiter(b"\n").max_length(LINE_BYTES_MAX);
        Some(Box::new(lines) as Box<dyn Protocol>)
    };
    let port = listen_tcp(parsed, Box::new(factory))
        .map_err(|error| format!("cannot listen on {addr}: {error}; is it running already?"))?;
    println!("listening on {}", port.addr());
    Event::new().wait();
    Ok(())
}

fn main() -> ExitCode {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1234".into());
    match run(move || serve(&addr)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
