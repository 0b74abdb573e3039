//! What is said: as in `peer.py`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use warren_hub::sync::Event;
use warren_reactor::protocols::{
    Int8StringReceiver, Int16StringReceiver, Int32StringReceiver, LineReceiver, NetstringReceiver,
};
use warren_reactor::tls::{TlsClientOptions, TlsServerOptions};
use warren_reactor::{Protocol, Reason, Transport};

use crate::frames::{Framed, Line};

const ECHOED: usize = 3_000_000;
pub(crate) const RAW: usize = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Echo,
    Tls,
    MutualTls,
    StartTls,
    Lines,
    LinesTooLong,
    Raw,
    Netstrings,
    NetstringsTooLong,
    Int8,
    Int16,
    Int32,
    Int32TooLong,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Tls => "tls",
            Self::MutualTls => "mutual_tls",
            Self::StartTls => "start_tls",
            Self::Lines => "lines",
            Self::LinesTooLong => "lines_too_long",
            Self::Raw => "raw",
            Self::Netstrings => "netstrings",
            Self::NetstringsTooLong => "netstrings_too_long",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int32TooLong => "int32_too_long",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Echo | Self::Tls | Self::MutualTls => &[],
            Self::Lines => &[0, 1, 2, 500, 16384, 3],
            Self::LinesTooLong => &[1, 16385],
            Self::Raw => &[1, 2],
            Self::Netstrings => &[0, 1, 9, 10, 99, 100, 65536, 99999, 3],
            Self::NetstringsTooLong | Self::Int32TooLong => &[1, 100_000],
            Self::Int8 => &[0, 1, 254, 255, 3],
            Self::Int16 => &[0, 1, 255, 256, 65535, 3],
            Self::Int32 => &[0, 1, 255, 65536, 99999, 3],
            Self::StartTls => &[1, 2, 16384],
        }
    }

    /// What a client says.
    pub(crate) fn messages(self) -> Vec<Vec<u8>> {
        let message = |size: &usize| (0..*size).map(|place| letter(place + size)).collect();
        self.sizes().iter().map(message).collect()
    }

    fn is_too_long(self) -> bool {
        matches!(self, Self::LinesTooLong | Self::NetstringsTooLong | Self::Int32TooLong)
    }
}

fn letter(place: usize) -> u8 {
    b"abcdefghijklmnopqrstuvwxyz"[place % 26]
}

/// How a connection ends on either side.
pub(crate) const END: &str = "done";

/// How many answers a client gets: bytes, where there are no messages.
pub(crate) fn answers_expected(kind: Kind) -> usize {
    match kind {
        Kind::Echo | Kind::Tls | Kind::MutualTls => ECHOED,
        // The bytes between the lines have one of their own.
        Kind::Raw => 3,
        kind => kind.sizes().len() - usize::from(kind.is_too_long()),
    }
}

#[derive(Clone)]
pub(crate) enum Role {
    Server(TlsServerOptions),
    Client(TlsClientOptions),
}

/// What the test gets to know.
pub(crate) struct Told {
    pub(crate) answered: Cell<usize>,
    pub(crate) end: RefCell<String>,
    pub(crate) ended: Event,
}

impl Default for Told {
    fn default() -> Self {
        Self { answered: Cell::default(), end: RefCell::default(), ended: Event::new() }
    }
}

impl Told {
    pub(crate) fn lost(&self, reason: &Reason) {
        let end = match reason {
            Reason::Done | Reason::Closed => "done".to_owned(),
            other => format!("lost: {other}"),
        };
        *self.end.borrow_mut() = end;
        self.ended.set();
    }
}

pub(crate) fn protocol(kind: Kind, role: Role, told: Rc<Told>) -> Box<dyn Protocol> {
    let framed = |role| Framed::new(kind, role, told.clone());
    match kind {
        Kind::Echo | Kind::Tls | Kind::MutualTls => {
            let mutual = kind == Kind::MutualTls;
            Box::new(Echo { role, mutual, received: 0, told })
        }
        Kind::Lines | Kind::LinesTooLong | Kind::Raw | Kind::StartTls => {
            Box::new(LineReceiver::new(Line::new(framed(role))))
        }
        Kind::Netstrings | Kind::NetstringsTooLong => {
            Box::new(NetstringReceiver::new(framed(role)))
        }
        Kind::Int8 => Box::new(Int8StringReceiver::new(framed(role))),
        Kind::Int16 => Box::new(Int16StringReceiver::new(framed(role))),
        Kind::Int32 | Kind::Int32TooLong => Box::new(Int32StringReceiver::new(framed(role))),
    }
}

/// Bytes without frames.
struct Echo {
    role: Role,
    /// Both sides have shown a certificate, and agreed upon a protocol.
    mutual: bool,
    received: usize,
    told: Rc<Told>,
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        if let Role::Client(_) = self.role {
            transport.write(&vec![b'x'; ECHOED]);
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        if self.mutual {
            let info = transport.tls_info().unwrap();
            assert_eq!(info.alpn.as_deref(), Some(&b"warren"[..]));
            assert_eq!(info.peer_certificates.len(), 1);
        }
        self.received += data.len();
        match self.role {
            Role::Server(_) => transport.write(data),
            Role::Client(_) => {
                self.told.answered.set(self.received);
                if self.received == ECHOED {
                    transport.lose_connection();
                }
            }
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.told.lost(reason);
    }
}
