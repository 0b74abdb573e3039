//! Reads connections.txt, and does what it says with the reactor. Where ours is made otherwise on purpose, the table says
//! so, and what we say instead.

mod table;
mod tls;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::Event;
use warren_hub::{call_soon, with_timeout};
use warren_reactor::tls::{connect_ssl, listen_ssl};
use warren_reactor::{
    ClientFactory, Connector, Consumer, Factory, ListeningPort, PeerAddr, Producer, Protocol,
    Reason, Transport, call_later, connect_tcp, connect_unix, listen_tcp, listen_unix,
};

use table::{Case, Side};

const PIECE: usize = 100_000;
/// The table's `later`.
const MOMENT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);

/// A test for each case, and their names in the order of the table.
macro_rules! cases {
    ($($name:ident)*) => {
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod tests {
            $(
                #[test]
                fn $name() {
                    super::check(stringify!($name));
                }
            )*
        }
    };
}

cases! {
    echo
    the_server_loses
    the_client_loses_at_once
    the_server_loses_at_once
    both_lose
    losing_writes_first
    losing_waits_for_a_slow_reader
    losing_twice
    losing_then_aborting
    writing_after_losing
    many_writes
    the_client_aborts
    the_server_aborts
    aborting_drops_output
    aborting_twice
    aborting_within_the_loss
    half_close_by_the_client
    half_close_that_both_hear
    half_close_by_the_server
    half_close_by_both
    half_close_writes_first
    half_close_and_write
    half_close_of_one_who_does_not_care
    half_close_and_lose
    half_close_and_abort
    end_of_file_while_output_waits
    a_pause_holds_data_back
    a_pause_within_data
    the_server_refuses
    the_client_refuses
    nobody_listens
    nobody_listens_again
    connecting_is_given_up
    connecting_is_given_up_by_disconnect
    disconnecting
    connecting_again
    the_server_stops_listening
    the_protocol_fails
    the_protocol_fails_at_the_loss
    a_push_producer
    losing_while_a_push_producer_is_idle
    a_push_producer_is_stopped
    a_pull_producer
    a_pull_producer_is_finished_first
    a_pull_producer_is_stopped
    a_producer_that_comes_too_late
    unix_echo
    unix_half_close
    unix_nobody_listens
    tls_echo
    tls_losing_writes_first
    tls_losing_before_the_handshake
    tls_losing_twice
    tls_aborting
    tls_pause
    start_tls
}

#[track_caller]
fn check(name: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let said = warren_hub::run(move || World::new(name).run(&socket));
    match &table::case(name).instead {
        Some(instead) => assert_eq!(said, *instead, "left: ours, right: connections.txt"),
        None => {
            let expected = crate::compared::expected(&format!("connections.{name}"));
            assert_eq!(said, expected, "left: ours, right: expected.txt");
        }
    }
}

/// A case that runs.
struct World {
    case: Case,
    client: SideState,
    server: SideState,
    connector: RefCell<Option<Connector>>,
    port: RefCell<Option<ListeningPort>>,
    /// Connections of the server's side, and those that the client's side wants to have there.
    made: Cell<usize>,
    lost: Cell<usize>,
    refused: Cell<usize>,
    expected: Cell<usize>,
    /// The client's factory has been stopped.
    stopped: Cell<bool>,
    end: Event,
}

#[derive(Default)]
struct SideState {
    log: RefCell<Vec<String>>,
    transport: RefCell<Option<Transport>>,
}

impl World {
    fn new(name: &str) -> Rc<Self> {
        Rc::new(Self {
            case: table::case(name),
            client: SideState::default(),
            server: SideState::default(),
            connector: RefCell::default(),
            port: RefCell::default(),
            made: Cell::default(),
            lost: Cell::default(),
            refused: Cell::default(),
            expected: Cell::default(),
            stopped: Cell::default(),
            end: Event::new(),
        })
    }

    fn run(self: Rc<Self>, socket: &Path) -> Vec<String> {
        self.listen(socket).unwrap();
        let in_time = with_timeout(PATIENCE, || self.end.wait()).is_ok();
        let port = self.port.take();
        drop(port);
        let mut said = Vec::new();
        if !in_time {
            said.push("too late".to_owned());
        }
        for side in [Side::Client, Side::Server] {
            said.extend(self.side(side).log.borrow().iter().map(|line| format!("{side} {line}")));
        }
        said
    }

    fn listen(self: &Rc<Self>, socket: &Path) -> io::Result<()> {
        let factory = |side| Box::new(Recorders { world: self.clone(), side });
        let nobody = self.case.has("client to nowhere");
        if self.case.has("over unix") {
            if !nobody {
                *self.port.borrow_mut() = Some(listen_unix(socket, factory(Side::Server))?);
            }
            connect_unix(socket, factory(Side::Client))?;
        } else {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let over_tls = self.case.has("over tls");
            let port = if nobody {
                // Silent, and gone when this has found a free port.
                listen_tcp(local, Box::new(|_: &PeerAddr| None))?
            } else if over_tls {
                listen_ssl(local, factory(Side::Server), &tls::server())?
            } else {
                listen_tcp(local, factory(Side::Server))?
            };
            let PeerAddr::Tcp(addr) = *port.addr() else { unreachable!("it is TCP's") };
            if !nobody {
                *self.port.borrow_mut() = Some(port);
            }
            if over_tls {
                connect_ssl(addr, factory(Side::Client), &tls::client());
            } else {
                connect_tcp(addr, factory(Side::Client));
            }
        }
        Ok(())
    }

    fn side(&self, side: Side) -> &SideState {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Notes an event, and does what is to be done then.
    fn happened(self: &Rc<Self>, side: Side, event: &str, detail: &str) {
        let line = format!("{event} {detail}");
        let line = line.trim_end();
        {
            let mut log = self.side(side).log.borrow_mut();
            if event == "data" && log.last().is_some_and(|last| last.starts_with("data ")) {
                log.pop();
            }
            log.push(line.to_owned());
        }
        for rule in &self.case.rules {
            if rule.side == side && (rule.event == event || rule.event == line) {
                for action in &rule.actions {
                    self.act(side, action, &rule.done);
                }
            }
        }
    }

    fn act(self: &Rc<Self>, side: Side, action: &str, done: &Rc<Cell<bool>>) {
        if let Some(action) = action.strip_prefix("once ") {
            if !done.replace(true) {
                self.act(side, action, done);
            }
            return;
        }
        if let Some(action) = action.strip_prefix("later ") {
            let (world, action, done) = (self.clone(), action.to_owned(), done.clone());
            call_later(MOMENT, move || world.act(side, &action, &done));
            return;
        }
        for other in [Side::Client, Side::Server] {
            if let Some(action) = action.strip_prefix(&format!("{other}.")) {
                return self.act(other, action, done);
            }
        }
        let words: Vec<&str> = action.split(' ').collect();
        match words[..] {
            ["stop", "listening"] => drop(self.port.take()),
            ["stop", "connecting"] => self.connector().stop_connecting(),
            ["disconnect"] => self.connector().disconnect(),
            ["connect"] => self.connector().connect(),
            ["fail"] => panic!("expected by a scenario"),
            _ => self.act_on_transport(side, &words),
        }
    }

    fn act_on_transport(self: &Rc<Self>, side: Side, action: &[&str]) {
        let transport = self.side(side).transport.borrow().clone().expect("a connection");
        match *action {
            ["write", text] => transport.write(text.as_bytes()),
            ["fill", count] => transport.write(&vec![b'x'; count.parse().unwrap()]),
            ["lose"] => transport.lose_connection(),
            ["abort"] => transport.abort_connection(),
            ["lose", "write"] => transport.lose_write_connection(),
            ["pause", "reading"] => transport.pause_reading(),
            ["resume", "reading"] => transport.resume_reading(),
            ["push", pieces] => Pieces::register(self, side, transport, pieces, true).go_on(),
            ["pull", pieces] => drop(Pieces::register(self, side, transport, pieces, false)),
            ["register"] => drop(Pieces::register(self, side, transport, "0", true)),
            ["start", "tls"] if side == Side::Server => {
                transport.start_tls(&tls::server(), b"").unwrap();
            }
            ["start", "tls"] => transport.start_tls(&tls::client(), b"").unwrap(),
            ["unregister"] => transport.unregister_producer(),
            _ => panic!("connections.txt: no action {action:?}"),
        }
    }

    fn connector(&self) -> Connector {
        self.connector.borrow().clone().expect("the client has begun")
    }

    fn check_end(self: &Rc<Self>) {
        let ended = self.lost.get() + self.refused.get();
        if self.stopped.get() && self.made.get() == self.lost.get() && self.expected.get() == ended
        {
            let world = self.clone();
            // After the rest of this turn.
            call_soon(move || world.end.set());
        }
    }
}

fn add_one(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

/// As Twisted's errors are shown.
fn show(reason: &Reason) -> String {
    let kind = match reason {
        Reason::Done | Reason::Closed => "done",
        Reason::Aborted => "aborted",
        Reason::Panicked(_) => "failed",
        Reason::Error(error) => match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "lost",
            io::ErrorKind::ConnectionRefused => "refused",
            io::ErrorKind::NotFound => "no such file",
            _ => return error.to_string(),
        },
        other => return other.to_string(),
    };
    kind.to_owned()
}

struct Recorder {
    world: Rc<World>,
    side: Side,
    received: Vec<u8>,
}

impl Recorder {
    fn happened(&self, event: &str, detail: &str) {
        self.world.happened(self.side, event, detail);
    }

    fn is(&self, mark: &str) -> bool {
        self.world.case.has(&format!("{} {mark}", self.side))
    }
}

impl Protocol for Recorder {
    fn connection_made(&mut self, transport: &Transport) {
        *self.world.side(self.side).transport.borrow_mut() = Some(transport.clone());
        if self.side == Side::Server {
            add_one(&self.world.made);
        }
        self.happened("made", "");
    }

    fn handshake_completed(&mut self, _transport: &Transport) {
        self.happened("handshake", "");
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.received.extend_from_slice(data);
        let text = match self.received.len() {
            0..=40 => String::from_utf8_lossy(&self.received).into_owned(),
            count => format!("{count} bytes"),
        };
        if !self.is("quiet") || self.world.case.waits_for(self.side, &format!("data {text}")) {
            self.happened("data", &text);
        }
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        if self.is("half closeable") {
            self.happened("read lost", "");
        } else {
            transport.lose_connection();
        }
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        if self.is("half closeable") {
            self.happened("write lost", "");
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        if self.side == Side::Server {
            add_one(&self.world.lost);
        }
        self.world.check_end();
        self.happened("lost", &show(reason));
    }
}

struct Recorders {
    world: Rc<World>,
    side: Side,
}

impl Recorders {
    fn happened(&self, event: &str, detail: &str) {
        self.world.happened(self.side, event, detail);
    }
}

impl Factory for Recorders {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self.happened("build", "");
        if self.side == Side::Client {
            add_one(&self.world.expected);
        }
        if self.world.case.has(&format!("{} refuses", self.side)) {
            if self.side == Side::Server {
                add_one(&self.world.refused);
                self.world.check_end();
            }
            return None;
        }
        let world = self.world.clone();
        Some(Box::new(Recorder { world, side: self.side, received: Vec::new() }))
    }

    fn start_factory(&mut self) {
        self.happened("start", "");
    }

    fn stop_factory(&mut self) {
        self.happened("stop", "");
        if self.side == Side::Client {
            self.world.stopped.set(true);
            self.world.check_end();
        }
    }
}

impl ClientFactory for Recorders {
    fn started_connecting(&mut self, connector: &Connector) {
        *self.world.connector.borrow_mut() = Some(connector.clone());
        self.happened("connecting", "");
    }

    fn client_connection_failed(&mut self, _connector: &Connector, reason: &Reason) {
        let reason = match reason {
            Reason::Aborted => "given up".to_owned(),
            reason => show(reason),
        };
        self.happened("failed", &reason);
    }

    fn client_connection_lost(&mut self, _connector: &Connector, reason: &Reason) {
        self.happened("factory lost", &show(reason));
    }
}

/// Writes pieces: one a turn, until it is paused; or one each time it is resumed.
struct Pieces {
    world: Rc<World>,
    side: Side,
    consumer: Transport,
    streaming: bool,
    left: Cell<usize>,
    paused: Cell<bool>,
    /// Only the first pause, or the first few resumptions, are told: how many there are is the system's affair.
    told: Cell<usize>,
}

/// What is registered: it knows itself.
struct Registered(Rc<Pieces>);

impl Pieces {
    fn register(
        world: &Rc<World>,
        side: Side,
        consumer: Transport,
        pieces: &str,
        streaming: bool,
    ) -> Rc<Self> {
        let own = Rc::new(Self {
            world: world.clone(),
            side,
            consumer: consumer.clone(),
            streaming,
            left: Cell::new(pieces.parse().unwrap()),
            paused: Cell::default(),
            told: Cell::default(),
        });
        consumer.register_producer(Rc::new(Registered(own.clone())), streaming);
        own
    }

    fn write(&self) {
        self.consumer.write(&[b'x'; PIECE]);
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            self.consumer.unregister_producer();
            self.world.happened(self.side, "produced", "");
        }
    }

    fn go_on(self: Rc<Self>) {
        if !self.paused.get() && 0 < self.left.get() {
            self.write();
            call_soon(move || self.go_on());
        }
    }
}

impl Producer for Registered {
    fn resume_producing(&self) {
        if self.0.streaming {
            self.0.paused.set(false);
            let own = self.0.clone();
            call_soon(move || own.go_on());
        } else {
            add_one(&self.0.told);
            if self.0.told.get() <= 3 {
                let count = self.0.told.get().to_string();
                self.0.world.happened(self.0.side, "resumed", &count);
            }
            self.0.write();
        }
    }

    fn pause_producing(&self) {
        self.0.paused.set(true);
        if self.0.told.replace(1) == 0 {
            self.0.world.happened(self.0.side, "paused", "");
        }
    }

    fn stop_producing(&self) {
        self.0.left.set(0);
        self.0.world.happened(self.0.side, "stopped", "");
    }
}
