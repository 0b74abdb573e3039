//! What wrapping factories and timeouts do, and when.

use std::time::Duration;

use warren_reactor::policies::{
    IdleTimeout, LimitTotalConnectionsFactory, ProtocolWrapper, ThrottlingFactory, TimeoutFactory,
    WrappingFactory,
};
use warren_reactor::testing::{Clock, TestConnection};
use warren_reactor::{Factory, PeerAddr, Protocol, Reason, Transport};

use crate::said::yes;

scenarios! { here:
    a_timeout
    a_timeout_is_reset
    a_timeout_is_changed
    a_timeout_is_taken_back
    a_timeout_that_is_over
    a_factory_is_wrapped
    connections_that_are_idle
    too_many_connections
    too_many_connections_are_told_so
}

const SECOND: Duration = Duration::from_secs(1);

/// A clock, a connection, and its timeout.
fn impatient() -> (Clock, TestConnection, IdleTimeout) {
    let clock = Clock::install();
    let connection = TestConnection::new(Box::new(Silent));
    let transport = connection.transport().clone();
    let timeout = IdleTimeout::with(move || {
        say!("timed out");
        transport.lose_connection();
    });
    (clock, connection, timeout)
}

struct Silent;

impl Protocol for Silent {
    fn connection_made(&mut self, _transport: &Transport) {}
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

fn say_losing(connection: &TestConnection) {
    say!("losing {}", yes(connection.transport().is_closing()));
}

fn say_was(before: Option<Duration>) {
    match before {
        Some(period) => say!("was {}", period.as_secs()),
        None => say!("was none"),
    }
}

fn a_timeout() {
    let (clock, connection, timeout) = impatient();
    say_was(timeout.set_timeout(Some(5 * SECOND)));
    clock.advance(4 * SECOND);
    say_losing(&connection);
    clock.advance(SECOND);
    say_losing(&connection);
}

fn a_timeout_is_reset() {
    let (clock, connection, timeout) = impatient();
    timeout.set_timeout(Some(5 * SECOND));
    for _ in 0..3 {
        clock.advance(4 * SECOND);
        timeout.reset_timeout();
    }
    say_losing(&connection);
    clock.advance(5 * SECOND);
}

fn a_timeout_is_changed() {
    let (clock, connection, timeout) = impatient();
    timeout.set_timeout(Some(5 * SECOND));
    clock.advance(4 * SECOND);
    say_was(timeout.set_timeout(Some(3 * SECOND)));
    clock.advance(2 * SECOND);
    say_was(timeout.set_timeout(Some(10 * SECOND)));
    clock.advance(9 * SECOND);
    say_losing(&connection);
    clock.advance(SECOND);
}

fn a_timeout_is_taken_back() {
    let (clock, connection, timeout) = impatient();
    timeout.set_timeout(Some(5 * SECOND));
    say_was(timeout.set_timeout(None));
    say_was(timeout.set_timeout(None));
    timeout.reset_timeout();
    clock.advance(100 * SECOND);
    say_losing(&connection);
}

fn a_timeout_that_is_over() {
    let (clock, _connection, timeout) = impatient();
    timeout.set_timeout(Some(5 * SECOND));
    clock.advance(5 * SECOND);
    timeout.reset_timeout();
    clock.advance(100 * SECOND);
    say_was(timeout.set_timeout(Some(SECOND)));
    clock.advance(SECOND);
}

struct Noted;

impl Protocol for Noted {
    fn connection_made(&mut self, _transport: &Transport) {
        say!("made");
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        say!("data {}", data.escape_ascii());
    }

    fn connection_lost(&mut self, _reason: &Reason) {
        say!("lost");
    }
}

struct Builder;

impl Factory for Builder {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        say!("build");
        Some(Box::new(Noted))
    }

    fn start_factory(&mut self) {
        say!("start");
    }

    fn stop_factory(&mut self) {
        say!("stop");
    }
}

fn connect(factory: &mut impl Factory) -> Option<TestConnection> {
    let built = factory.build_protocol(&PeerAddr::Memory);
    if built.is_none() {
        say!("refused");
    }
    built.map(TestConnection::new)
}

struct Plain;

impl ProtocolWrapper for Plain {}

fn a_factory_is_wrapped() {
    let mut factory = WrappingFactory::with(Builder, |_: &PeerAddr| Some(Plain));
    let connections = factory.connections();
    factory.start_factory();
    let mut connection = connect(&mut factory).unwrap();
    say!("connections {}", connections.len());
    connection.feed(b"hello");
    connection.lose();
    say!("connections {}", connections.len());
    factory.stop_factory();
}

fn connections_that_are_idle() {
    let clock = Clock::install();
    let mut factory = TimeoutFactory::new(Builder, 10 * SECOND);
    let mut connection = connect(&mut factory).unwrap();
    clock.advance(9 * SECOND);
    connection.feed(b"hello");
    clock.advance(9 * SECOND);
    connection.transport().write(b"hello");
    clock.advance(9 * SECOND);
    say_losing(&connection);
    clock.advance(SECOND);
    say_losing(&connection);
}

fn too_many_connections() {
    let mut factory = ThrottlingFactory::new(Builder).max_connection_count(2);
    let _first = connect(&mut factory);
    let mut second = connect(&mut factory).unwrap();
    connect(&mut factory);
    second.lose();
    let _third = connect(&mut factory);
}

struct TooMany;

impl Protocol for TooMany {
    fn connection_made(&mut self, _transport: &Transport) {
        say!("too many");
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}

    fn connection_lost(&mut self, _reason: &Reason) {
        say!("lost");
    }
}

fn too_many_connections_are_told_so() {
    use std::{cell::Cell, rc::Rc};
    let tells = Rc::new(Cell::new(false));
    let told = tells.clone();
    let build = |_: &PeerAddr| Some(Box::new(Noted) as Box<dyn Protocol>);
    let mut factory = LimitTotalConnectionsFactory::new(build, 1)
        .overflow(move |_| told.get().then(|| Box::new(TooMany) as Box<dyn Protocol>));
    let mut first = connect(&mut factory).unwrap();
    connect(&mut factory);
    tells.set(true);
    let mut over = connect(&mut factory).unwrap();
    first.lose();
    let mut again = connect(&mut factory).unwrap();
    over.lose();
    again.lose();
    let _last = connect(&mut factory);
}
