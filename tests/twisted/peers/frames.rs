//! Whole messages: a server answers each in reverse, a client asks.

use std::rc::Rc;

use warren_reactor::protocols::{LineProtocol, LineTransport, StringProtocol, StringTransport};
use warren_reactor::{Reason, Transport};

use crate::talk::{Kind, RAW, Role, Told};

/// What messages can be sent by.
pub(crate) trait Sender {
    fn send(&self, message: &[u8]);
    fn transport(&self) -> &Transport;
}

impl Sender for LineTransport {
    fn send(&self, message: &[u8]) {
        self.send_line(message);
    }

    fn transport(&self) -> &Transport {
        self
    }
}

impl Sender for StringTransport {
    fn send(&self, message: &[u8]) {
        self.send_string(message).unwrap();
    }

    fn transport(&self) -> &Transport {
        self
    }
}

pub(crate) struct Framed {
    kind: Kind,
    role: Role,
    told: Rc<Told>,
    /// That a client waits for.
    answers: Vec<Vec<u8>>,
}

impl Framed {
    pub(crate) fn new(kind: Kind, role: Role, told: Rc<Told>) -> Self {
        Self { kind, role, told, answers: Vec::new() }
    }

    fn begin(&mut self, sender: &impl Sender) {
        for message in self.kind.messages() {
            sender.send(&message);
            self.answers.push(reversed(&message));
        }
    }

    fn received(&mut self, sender: &impl Sender, message: &[u8]) {
        if let Role::Server(_) = self.role {
            return sender.send(&reversed(message));
        }
        let answered = self.told.answered.get();
        assert_eq!(message, self.answers[answered]);
        self.told.answered.set(answered + 1);
        if answered + 1 == self.answers.len() {
            sender.transport().lose_connection();
        }
    }
}

fn reversed(message: &[u8]) -> Vec<u8> {
    message.iter().rev().copied().collect()
}

impl StringProtocol for Framed {
    fn connection_made(&mut self, transport: &StringTransport) {
        if let Role::Client(_) = self.role {
            self.begin(transport);
        }
    }

    fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
        self.received(transport, string);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.told.lost(reason);
    }
}

/// Messages that are lines, with bytes between them, and in the clear at first, if it is to be.
pub(crate) struct Line {
    framed: Framed,
    /// Bytes until there are lines again.
    raw: usize,
}

impl Line {
    pub(crate) fn new(framed: Framed) -> Self {
        Self { framed, raw: 0 }
    }

    /// A client's first words.
    fn begin(&mut self, transport: &LineTransport) {
        match self.framed.kind {
            Kind::StartTls => transport.send_line(b"STARTTLS"),
            Kind::Raw => {
                let [first, second] = &self.framed.kind.messages()[..] else { unreachable!() };
                transport.send_line(first);
                transport.send_line(b"RAW");
                transport.write(&b"\r\n".repeat(RAW / 2));
                transport.send_line(second);
                let got = format!("got {RAW}").into_bytes();
                self.framed.answers = vec![reversed(first), got, reversed(second)];
            }
            _ => self.framed.begin(transport),
        }
    }
}

impl LineProtocol for Line {
    fn connection_made(&mut self, transport: &LineTransport) {
        if let Role::Client(_) = self.framed.role {
            self.begin(transport);
        }
    }

    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        match (line, &self.framed.role) {
            (b"STARTTLS", Role::Server(options)) => {
                transport.send_line(b"GO");
                transport.start_tls(options, b"").unwrap();
            }
            (b"GO", Role::Client(options)) => {
                transport.start_tls(options, b"").unwrap();
                self.framed.begin(transport);
            }
            (b"RAW", _) => {
                self.raw = RAW;
                transport.set_raw_mode();
            }
            _ => self.framed.received(transport, line),
        }
    }

    fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
        let (raw, lines) = data.split_at(self.raw.min(data.len()));
        self.raw -= raw.len();
        if self.raw == 0 {
            transport.send_line(format!("got {RAW}").as_bytes());
            transport.set_line_mode(lines);
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.framed.told.lost(reason);
    }
}
