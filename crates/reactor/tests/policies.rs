//! Factories that limit what the connections of another may do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use warren_reactor::policies::{
    IdleTimeout, LimitConnectionsByPeer, LimitTotalConnectionsFactory, ProtocolWrapper,
    ThrottlingFactory, TimeoutFactory, TrafficLoggingFactory, WrappingFactory,
};
use warren_reactor::protocols::{for_protocol, wire};
use warren_reactor::testing::{Clock, End, TestConnection};
use warren_reactor::{Factory, PeerAddr, Protocol, Reason, Transport, WriteLimits};

const SECOND: Duration = Duration::from_secs(1);

type Log = Rc<RefCell<Vec<String>>>;

fn connect(factory: &mut impl Factory) -> Option<TestConnection> {
    factory.build_protocol(&PeerAddr::Memory).map(TestConnection::new)
}

fn echo() -> impl FnMut(&PeerAddr) -> Option<Box<dyn Protocol>> {
    for_protocol(|| wire::Echo)
}

/// Notes every callback.
struct Noting(Log);

impl Noting {
    fn note(&self, what: &str) {
        self.0.borrow_mut().push(what.into());
    }
}

impl Protocol for Noting {
    fn connection_made(&mut self, _transport: &Transport) {
        self.note("made");
    }
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.note(&format!("data {}", data.escape_ascii()));
        if data == b"half" {
            transport.lose_write_connection();
        }
    }
    fn read_connection_lost(&mut self, transport: &Transport) {
        self.note("read lost");
        transport.lose_connection();
    }
    fn write_connection_lost(&mut self, _transport: &Transport) {
        self.note("write lost");
    }
    fn pause_producing(&mut self, _transport: &Transport) {
        self.note("pause");
    }
    fn resume_producing(&mut self, _transport: &Transport) {
        self.note("resume");
    }
    fn connection_lost(&mut self, reason: &Reason) {
        self.note(&format!("lost: {reason}"));
    }
}

/// Hands everything on.
struct Plain;

impl ProtocolWrapper for Plain {}

/// A factory that notes its own callbacks.
struct NotingFactory(Log);

impl Factory for NotingFactory {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self.0.borrow_mut().push(format!("build for {peer}"));
        Some(Box::new(Noting(self.0.clone())))
    }
    fn start_factory(&mut self) {
        self.0.borrow_mut().push("start".into());
    }
    fn stop_factory(&mut self) {
        self.0.borrow_mut().push("stop".into());
    }
}

#[test]
fn a_wrapper_hands_everything_on() {
    let log = Log::default();
    let policy = |_: &PeerAddr| Some(Plain);
    let inner = WrappingFactory::with(NotingFactory(log.clone()), policy);
    let mut factory = WrappingFactory::with(inner, policy);
    let connections = factory.connections();
    factory.start_factory();
    let mut connection = connect(&mut factory).unwrap();
    assert_eq!(connections.len(), 1);
    connection.feed(b"hello");
    connection.transport().set_write_buffer_limits(WriteLimits { high_bytes: 1, low_bytes: 0 });
    connection.stall(true);
    connection.transport().write(b"more");
    assert!(!connection.is_lost());
    connection.stall(false);
    connection.feed(b"half");
    connection.half_close();
    assert!(connection.is_lost() && connections.is_empty());
    factory.stop_factory();
    let told = [
        "start",
        "build for memory",
        "made",
        "data hello",
        "pause",
        "resume",
        "data half",
        "write lost",
        "read lost",
        "lost: closed by the peer",
        "stop",
    ];
    assert_eq!(*log.borrow(), told);
}

#[test]
fn the_connections_that_stand_are_known() {
    let mut factory = WrappingFactory::with(echo(), |_: &PeerAddr| Some(Plain));
    let connections = factory.connections();
    let mut first = connect(&mut factory).unwrap();
    let mut second = connect(&mut factory).unwrap();
    drop(factory.build_protocol(&PeerAddr::Memory));
    connections.for_each(|transport| transport.write(b"all"));
    assert_eq!((first.take_output(), second.take_output()), (b"all".to_vec(), b"all".to_vec()));
    connections.for_each(Transport::abort_connection);
    assert!(first.is_lost() && second.is_lost() && connections.is_empty());
}

#[test]
fn a_policy_may_refuse() {
    let mut factory = WrappingFactory::with(echo(), |_: &PeerAddr| None::<Plain>);
    assert!(connect(&mut factory).is_none());
}

#[test]
fn an_idle_timeout_can_be_set_reset_changed_and_dropped() {
    let clock = Clock::install();
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let timeout = IdleTimeout::with(move || counted.set(counted.get() + 1));
    timeout.reset_timeout();
    assert_eq!(clock.delayed_calls(), 0);
    assert_eq!(timeout.set_timeout(Some(5 * SECOND)), None);
    clock.advance(4 * SECOND);
    timeout.reset_timeout();
    clock.advance(4 * SECOND);
    assert_eq!(timeout.set_timeout(Some(2 * SECOND)), Some(5 * SECOND));
    clock.advance(SECOND);
    assert_eq!(calls.get(), 0);
    clock.advance(SECOND);
    assert_eq!(calls.get(), 1);
    // Over is over, until it is set again.
    timeout.reset_timeout();
    clock.advance(10 * SECOND);
    assert_eq!((calls.get(), clock.delayed_calls()), (1, 0));
    timeout.set_timeout(Some(SECOND));
    clock.advance(SECOND);
    assert_eq!(calls.get(), 2);
    timeout.set_timeout(Some(SECOND));
    assert_eq!(timeout.set_timeout(None), Some(SECOND));
    assert_eq!((timeout.timeout(), clock.delayed_calls()), (None, 0));
    timeout.set_timeout(Some(SECOND));
    drop(timeout);
    clock.advance(SECOND);
    assert_eq!(calls.get(), 2);
}

#[test]
fn a_connection_on_which_nothing_happens_is_closed() {
    let clock = Clock::install();
    let mut factory = TimeoutFactory::new(echo(), 10 * SECOND);
    let mut connection = connect(&mut factory).unwrap();
    for _ in 0..5 {
        clock.advance(9 * SECOND);
        connection.feed(b"x");
        clock.advance(9 * SECOND);
        // What we say ourselves counts too.
        connection.transport().write(b"y");
    }
    assert!(!connection.is_lost());
    connection.transport().write(b"z");
    clock.advance(10 * SECOND);
    assert_eq!(connection.closed(), Some(End::Graceful));
    assert_eq!(connection.take_output(), b"xyxyxyxyxyz");
    assert_eq!(clock.delayed_calls(), 0);
}

#[test]
fn many_packets_move_no_timer() {
    let clock = Clock::install();
    let mut factory = TimeoutFactory::new(for_protocol(|| wire::Discard), 10 * SECOND);
    let mut connection = connect(&mut factory).unwrap();
    for _ in 0..1_000 {
        clock.advance(SECOND);
        connection.feed(b"x");
        assert_eq!(clock.delayed_calls(), 1);
    }
    connection.lose();
    assert_eq!(clock.delayed_calls(), 0);
}

#[test]
fn a_peer_that_does_not_read_can_be_cut_off() {
    let clock = Clock::install();
    let mut factory =
        TimeoutFactory::new(echo(), SECOND).timeout_connection(Transport::abort_connection);
    let mut connection = connect(&mut factory).unwrap();
    connection.stall(true);
    connection.feed(b"x");
    clock.advance(SECOND);
    assert_eq!(connection.closed(), Some(End::Abrupt));
}

#[test]
fn reading_beyond_the_limit_stops_until_it_is_made_up_for() {
    let clock = Clock::install();
    let log = Log::default();
    let kept = log.clone();
    let inner = for_protocol(move || Noting(kept.clone()));
    let mut factory = ThrottlingFactory::new(inner).read_limit(10);
    let mut first = connect(&mut factory).unwrap();
    let mut second = connect(&mut factory).unwrap();
    log.borrow_mut().clear();
    first.feed(b"0123456789");
    second.feed(b"0123456789");
    // Ten bytes beyond what a second allows: both wait for a second.
    first.feed(b"not read");
    let mut third = connect(&mut factory).unwrap();
    third.feed(b"not read");
    clock.advance(SECOND - Duration::from_millis(1));
    second.feed(b"not read");
    clock.advance(Duration::from_millis(1));
    third.feed(b"01234");
    clock.advance(SECOND / 2);
    first.feed(b"56789");
    let told = ["data 0123456789", "data 0123456789", "made", "data 01234", "data 56789"];
    assert_eq!(*log.borrow(), told);
    // After a while of nothing there is no more than a second's worth.
    clock.advance(100 * SECOND);
    assert_eq!(clock.delayed_calls(), 0);
    first.feed(b"0123456789");
    first.feed(b"0");
    first.feed(b"not read");
    assert_eq!(log.borrow()[5..], ["data 0123456789", "data 0"]);
}

#[test]
fn a_protocols_own_pause_outlasts_a_throttle() {
    let clock = Clock::install();
    let mut factory = ThrottlingFactory::new(echo()).read_limit(1);
    let mut connection = connect(&mut factory).unwrap();
    connection.feed(b"abc");
    connection.transport().pause_reading();
    clock.advance(2 * SECOND);
    connection.feed(b"not read");
    connection.transport().resume_reading();
    connection.feed(b"d");
    // And a throttle outlasts the protocol's wish to read on.
    connection.transport().pause_reading();
    connection.transport().resume_reading();
    connection.feed(b"not read");
    assert_eq!(connection.take_output(), b"abcd");
}

#[test]
fn writing_beyond_the_limit_waits() {
    let clock = Clock::install();
    let log = Log::default();
    let kept = log.clone();
    let inner = for_protocol(move || Noting(kept.clone()));
    let mut factory = ThrottlingFactory::new(inner).write_limit(10);
    let mut connection = connect(&mut factory).unwrap();
    let transport = connection.transport().clone();
    transport.set_write_buffer_limits(WriteLimits { high_bytes: 12, low_bytes: 0 });
    transport.write(b"0123456789");
    assert_eq!(connection.take_output(), b"0123456789");
    // There is no debt yet, so this is sent, and all that comes later waits.
    transport.write(b"0123456789");
    assert_eq!(connection.take_output(), b"0123456789");
    transport.write(b"0123456789");
    transport.write_bytes(b"01234".as_slice().into());
    assert_eq!(connection.take_output(), b"");
    assert_eq!(*log.borrow(), ["made", "pause"]);
    clock.advance(SECOND - Duration::from_millis(1));
    assert_eq!(connection.take_output(), b"");
    clock.advance(Duration::from_millis(1));
    assert_eq!(connection.take_output(), b"012345678901234");
    assert_eq!(*log.borrow(), ["made", "pause", "resume"]);
    transport.write(b"last");
    transport.lose_connection();
    assert_eq!((connection.take_output(), connection.closed()), (vec![], None));
    clock.advance(SECOND * 3 / 2);
    assert_eq!(connection.take_output(), b"last");
    assert_eq!(connection.closed(), Some(End::Graceful));
}

#[test]
fn a_writer_that_never_stops_sends_at_the_limit() {
    let clock = Clock::install();
    let mut factory = ThrottlingFactory::new(echo()).write_limit(1000);
    let mut connection = connect(&mut factory).unwrap();
    let (mut sent, mut largest) = (0, 0);
    for _ in 0..1000 {
        connection.transport().write(&[b'x'; 20]);
        let piece = connection.take_output().len();
        (sent, largest) = (sent + piece, largest.max(piece));
        clock.advance(Duration::from_millis(10));
    }
    assert!((10_000..=11_000 + largest).contains(&sent), "{sent} bytes in ten seconds");
}

#[test]
fn a_throttled_connection_can_be_aborted() {
    let clock = Clock::install();
    let mut factory = ThrottlingFactory::new(echo()).read_limit(1).write_limit(1);
    let mut connection = connect(&mut factory).unwrap();
    connection.feed(b"abcdef");
    connection.transport().abort_connection();
    assert!(connection.is_lost());
    drop(factory);
    drop(connection);
    assert_eq!(clock.delayed_calls(), 0);
}

#[test]
fn over_time_no_more_passes_than_the_limit() {
    let clock = Clock::install();
    let mut factory = ThrottlingFactory::new(echo()).read_limit(1000).write_limit(1000);
    let mut connections: Vec<_> = (0..10).map(|_| connect(&mut factory).unwrap()).collect();
    let mut passed = 0;
    for _ in 0..1000 {
        for connection in &mut connections {
            connection.feed(&[b'x'; 37]);
        }
        for connection in &mut connections {
            passed += connection.take_output().len();
        }
        clock.advance(Duration::from_millis(10));
    }
    assert!((9_600..=11_400).contains(&passed), "{passed} bytes in ten seconds");
}

#[test]
fn so_many_connections_and_no_more() {
    let mut factory = ThrottlingFactory::new(echo()).max_connection_count(2);
    let first = connect(&mut factory);
    let mut second = connect(&mut factory).unwrap();
    assert!(first.is_some() && connect(&mut factory).is_none());
    second.lose();
    assert!(connect(&mut factory).is_some());
}

#[test]
fn one_connection_too_many_is_told_so() {
    let overflow = |_: &PeerAddr| Some(Box::new(wire::Qotd::new("too many")) as Box<dyn Protocol>);
    let mut factory = LimitTotalConnectionsFactory::new(echo(), 1);
    let mut first = connect(&mut factory).unwrap();
    assert!(connect(&mut factory).is_none());
    let mut factory = LimitTotalConnectionsFactory::new(echo(), 1).overflow(overflow);
    let mut second = connect(&mut factory).unwrap();
    let mut third = connect(&mut factory).unwrap();
    assert_eq!(third.take_output(), b"too many");
    second.feed(b"hi");
    first.feed(b"hi");
    assert_eq!((first.take_output(), second.take_output()), (b"hi".to_vec(), b"hi".to_vec()));
    second.lose();
    let mut fourth = connect(&mut factory).unwrap();
    fourth.feed(b"room");
    assert_eq!(fourth.take_output(), b"room");
}

#[test]
fn so_many_connections_of_a_peer_and_no_more() {
    let mut factory = LimitConnectionsByPeer::new(echo()).max_connections(2);
    let mut connect = |addr: &str| {
        let peer = PeerAddr::Tcp(addr.parse().unwrap());
        factory.build_protocol(&peer).map(|built| TestConnection::with_peer(built, peer))
    };
    let mut first = connect("10.0.0.1:1000").unwrap();
    // The same in another notation.
    let second = connect("[::ffff:10.0.0.1]:1001");
    assert!(second.is_some() && connect("10.0.0.1:1002").is_none());
    assert!(connect("10.0.0.2:1000").is_some());
    first.lose();
    assert!(connect("10.0.0.1:1003").is_some());
    // One network of IPv6 is one peer.
    let kept = (connect("[2001:db8::1]:1"), connect("[2001:db8::2]:1"));
    assert!(kept.0.is_some() && kept.1.is_some() && connect("[2001:db8::3]:1").is_none());
    assert!(connect("[2001:db8:0:1::3]:1").is_some());
    let mut all = LimitConnectionsByPeer::new(echo()).max_connections(1).ipv6_prefix(0);
    let peers = ["[2001:db8::1]:1", "[fe80::1]:1"].map(|addr| PeerAddr::Tcp(addr.parse().unwrap()));
    let first = all.build_protocol(&peers[0]);
    assert!(first.is_some() && all.build_protocol(&peers[1]).is_none());
    let mut each = LimitConnectionsByPeer::new(echo()).max_connections(1).ipv6_prefix(128);
    let peers =
        ["[2001:db8::1]:1", "[2001:db8::2]:1"].map(|addr| PeerAddr::Tcp(addr.parse().unwrap()));
    let first = each.build_protocol(&peers[0]);
    assert!(first.is_some() && each.build_protocol(&peers[1]).is_some());
    let mut local = LimitConnectionsByPeer::new(echo()).max_connections(0);
    assert!(local.build_protocol(&PeerAddr::Unix(None)).is_some());
}

#[test]
fn a_watcher_sees_what_is_written_in_whichever_way() {
    let log = Log::default();
    let lines = log.clone();
    let mut factory = TrafficLoggingFactory::new(echo(), move |number, traffic| {
        lines.borrow_mut().push(format!("{number} {traffic}"));
    });
    let connection = connect(&mut factory).unwrap();
    let transport = connection.transport();
    transport.write(b"one");
    transport.write_sequence(["two", "three"]);
    transport.write_bytes(b"four".as_slice().into());
    transport.write_bytes(vec![b'x'; 5000].into());
    transport.write(b"five");
    transport.write(&[b'y'; 10_000]);
    let _ = connect(&mut factory).unwrap();
    let log = log.borrow();
    assert_eq!(log[6].len(), "1 wrote ".len() + 10_000);
    assert_eq!(
        log[..4],
        ["1 connected to memory", "1 wrote one", "1 wrote twothree", "1 wrote four"]
    );
    assert_eq!((&*log[5], &*log[7]), ("1 wrote five", "2 connected to memory"));
}
