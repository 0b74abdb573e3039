//! The pump itself.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::{Fragmentation, Loss, Pump, Side, connect};
use crate::testing::{Clock, cut_everywhere, lose_everywhere};
use crate::{Protocol, Reason, Transport, WriteLimits, call_later, now};

const MILLI: Duration = Duration::from_millis(1);

type Log = Rc<RefCell<Vec<String>>>;

/// Says something at first, and notes what it hears.
struct Talker {
    says: Vec<u8>,
    /// Stays when the peer has ended its output.
    stays: bool,
    log: Log,
}

impl Protocol for Talker {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&self.says);
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.log.borrow_mut().push(String::from_utf8_lossy(data).into_owned());
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.log.borrow_mut().push("end".into());
        if !self.stays {
            transport.lose_connection();
        }
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        self.log.borrow_mut().push("ended".into());
    }

    fn pause_producing(&mut self, _transport: &Transport) {
        self.log.borrow_mut().push("pause".into());
    }

    fn resume_producing(&mut self, _transport: &Transport) {
        self.log.borrow_mut().push("resume".into());
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.log.borrow_mut().push(format!("lost: {reason}"));
    }
}

fn talkers(server: &[u8], client: &[u8], stays: bool) -> (Pump, Log, Log) {
    let (logs, says) = ([Log::default(), Log::default()], [server, client]);
    let talker =
        |n: usize| Box::new(Talker { says: says[n].to_vec(), stays, log: logs[n].clone() });
    let pump = connect(talker(0), talker(1));
    let [server, client] = logs;
    (pump, server, client)
}

/// Takes what has been noted.
fn noted(log: &Log) -> Vec<String> {
    log.take()
}

#[test]
fn nothing_moves_before_it_is_pumped() {
    let (pump, server, client) = talkers(b"hello", b"hi", false);
    assert!(noted(&server).is_empty() && noted(&client).is_empty());
    assert!(pump.pump());
    assert_eq!((noted(&server), noted(&client)), (vec!["hi".into()], vec!["hello".into()]));
    assert!(!pump.flush());
    pump.transport(Side::Client).lose_connection();
    pump.flush();
    assert_eq!(noted(&server), ["end", "lost: closed by the peer"]);
    assert_eq!(noted(&client), ["lost: closed here"]);
    assert!(pump.is_over());
}

#[test]
fn bytes_are_cut_as_asked() {
    let cut = |fragmentation| {
        let (pump, server, _) = talkers(b"", b"abcdefgh", false);
        pump.fragmentation(&fragmentation).flush();
        noted(&server)
    };
    assert_eq!(cut(Fragmentation::Whole), ["abcdefgh"]);
    assert_eq!(cut(Fragmentation::Bytes(3)), ["abc", "def", "gh"]);
    assert_eq!(cut(Fragmentation::Bytes(1)).len(), 8);
    assert_eq!(cut(Fragmentation::At(vec![5, 1, 8])), ["a", "bcde", "fgh"]);
    let random = |seed| cut(Fragmentation::Random { seed, most: 3 });
    for seed in 0..20 {
        let pieces = random(seed);
        assert_eq!(pieces.concat(), "abcdefgh");
        assert!(pieces.iter().all(|piece| piece.len() <= 3));
        assert_eq!(pieces, random(seed));
    }
    assert!((1..20).any(|seed| random(seed) != random(0)));
}

#[test]
fn latency_and_bandwidth_go_by_the_clock() {
    let clock = Clock::install();
    let (pump, server, client) = talkers(b"0123456789", b"hi", false);
    pump.latency_from(Side::Server, 10 * MILLI).latency_from(Side::Client, 30 * MILLI);
    // Ten bytes take 50 ms to leave.
    pump.bandwidth(Side::Server, 200);
    pump.flush();
    clock.advance(29 * MILLI);
    assert!(noted(&server).is_empty());
    clock.advance(MILLI);
    assert_eq!(noted(&server), ["hi"]);
    clock.advance(29 * MILLI);
    assert!(noted(&client).is_empty());
    clock.advance(MILLI);
    assert_eq!(noted(&client), ["0123456789"]);
    assert_eq!(clock.delayed_calls(), 0);
}

/// Asks again and again, a while after each answer.
struct Asks {
    left: u32,
    answers: Rc<RefCell<Vec<Duration>>>,
    start: std::time::Instant,
}

impl Protocol for Asks {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"?");
    }

    fn data_received(&mut self, transport: &Transport, _data: &[u8]) {
        self.answers.borrow_mut().push(now() - self.start);
        self.left -= 1;
        let (transport, last) = (transport.clone(), self.left == 0);
        call_later(MILLI, move || match last {
            true => transport.lose_connection(),
            false => transport.write(b"?"),
        });
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

struct Echo;

impl Protocol for Echo {
    fn connection_made(&mut self, _transport: &Transport) {}
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
    fn connection_lost(&mut self, _reason: &Reason) {}
}

#[test]
fn the_clock_alone_moves_a_conversation_of_timers_and_latency() {
    let clock = Clock::install();
    let answers = Rc::default();
    let asks = Asks { left: 3, answers: Rc::clone(&answers), start: now() };
    let pump = connect(Box::new(Echo), Box::new(asks));
    pump.latency(5 * MILLI);
    pump.flush();
    clock.advance(Duration::from_secs(1));
    assert!(pump.is_over(), "{:#?}", pump.log());
    assert_eq!(*answers.borrow(), [10 * MILLI, 21 * MILLI, 32 * MILLI]);
}

#[test]
fn who_does_not_read_holds_the_other_back() {
    let (pump, server, client) = talkers(&[b's'; 1000], b"", false);
    pump.window(100).stall(Side::Client, true);
    pump.transport(Side::Server)
        .set_write_buffer_limits(WriteLimits { high_bytes: 500, low_bytes: 200 });
    pump.flush();
    assert_eq!(noted(&server), ["pause"]);
    assert_eq!(pump.transport(Side::Server).buffered(), 900);
    assert!(noted(&client).is_empty());
    pump.stall(Side::Client, false).flush();
    assert_eq!(noted(&server), ["resume"]);
    assert_eq!(noted(&client).concat().len(), 1000);
}

#[test]
fn a_pause_of_the_protocol_is_a_stall_and_ends_by_itself() {
    let clock = Clock::install();
    let (pump, _, client) = talkers(b"hello", b"", false);
    let transport = pump.transport(Side::Client).clone();
    transport.pause_reading();
    pump.flush();
    clock.advance(MILLI);
    assert!(noted(&client).is_empty());
    transport.resume_reading();
    clock.advance(Duration::ZERO);
    assert_eq!(noted(&client), ["hello"]);
}

#[test]
fn each_direction_may_end_by_itself() {
    let (pump, server, client) = talkers(b"", b"question", true);
    pump.transport(Side::Client).lose_write_connection();
    pump.flush();
    assert_eq!(noted(&server), ["question", "end"]);
    assert_eq!(noted(&client), ["ended"]);
    pump.transport(Side::Server).write(b"answer");
    pump.transport(Side::Server).lose_write_connection();
    pump.flush();
    assert_eq!(noted(&server), ["ended", "lost: closed by the peer"]);
    assert_eq!(noted(&client), ["answer", "end", "lost: closed by the peer"]);
}

#[test]
fn an_abort_is_a_reset_to_the_other() {
    let (pump, server, client) = talkers(b"hello", b"hi", true);
    pump.transport(Side::Client).abort_connection();
    pump.flush();
    assert_eq!(noted(&server), ["lost: connection reset"]);
    assert_eq!(noted(&client), ["lost: aborted here"]);
}

#[test]
fn a_reset_while_reading_is_paused_is_seen_when_it_is_resumed_or_something_is_written() {
    for writes in [false, true] {
        let (pump, _, client) = talkers(b"", b"", true);
        let transport = pump.transport(Side::Client).clone();
        transport.pause_reading();
        pump.lose(Side::Server, Loss::Reset);
        pump.flush();
        assert!(noted(&client).is_empty());
        if writes {
            transport.write(b"anyone there?");
        } else {
            transport.resume_reading();
        }
        pump.flush();
        assert!(pump.is_over() && noted(&client)[0].starts_with("lost: "));
    }
}

#[test]
fn a_connection_is_lost_where_and_how_it_was_asked() {
    let lose = |stays, loss| {
        let (pump, server, client) = talkers(b"hello", b"hi", stays);
        pump.fragmentation(&Fragmentation::Bytes(1)).lose_after(Side::Server, 2, loss).flush();
        assert_eq!(pump.passed(Side::Server), 2);
        (noted(&server), noted(&client))
    };
    let (server, client) = lose(true, Loss::Reset);
    assert_eq!(server, ["h", "i", "lost: connection reset"]);
    assert_eq!(client, ["h", "e", "lost: connection reset"]);
    let (server, client) = lose(false, Loss::Close);
    assert_eq!(server, ["h", "i", "end", "lost: closed by the peer"]);
    assert_eq!(client, ["h", "e", "end", "lost: closed by the peer"]);
    let (server, client) = lose(true, Loss::HalfClose);
    assert_eq!(server, ["h", "i"]);
    assert_eq!(client, ["h", "e", "end"]);
}

#[test]
fn a_conversation_ends_wherever_it_is_lost() {
    let runs = lose_everywhere(
        || {
            let (pump, server, client) = talkers(b"hello", b"hi", false);
            pump.fragmentation(&Fragmentation::Bytes(1));
            (pump, [server, client])
        },
        |lost, pump, logs| {
            assert!(pump.is_over() && pump.passed(lost.from) == lost.after);
            for log in logs {
                assert_eq!(log.borrow().iter().filter(|line| line.starts_with("lost")).count(), 1);
            }
        },
    );
    assert_eq!(runs, 3 * (6 + 3));
}

#[test]
fn protocols_that_never_end_are_told_of() {
    struct Kicks;
    impl Protocol for Kicks {
        fn connection_made(&mut self, transport: &Transport) {
            transport.write(b"ball");
        }
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            transport.write(data);
        }
        fn connection_lost(&mut self, _reason: &Reason) {}
    }
    let pump = connect(Box::new(Echo), Box::new(Kicks));
    let failed = catch_unwind(AssertUnwindSafe(|| pump.flush())).unwrap_err();
    let text = failed.downcast::<String>().unwrap();
    assert!(text.contains("receives 4 bytes: ball"), "{text}");
}

#[test]
fn a_connection_and_its_cuts_come_to_the_same() {
    let text = cut_everywhere(b"to and fro", |pieces| {
        let (pump, server, _) = talkers(b"", b"", false);
        for piece in pieces {
            pump.transport(Side::Client).write(piece);
            pump.flush();
        }
        noted(&server).concat()
    });
    assert_eq!(text, "to and fro");
}
