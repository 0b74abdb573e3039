//! Asks `udp_time_server` for the time. Datagrams get lost, so it asks again, and says so when nobody answers.
//!
//! `cargo run --example udp_time_client 127.0.0.1:1037 1000`: at most 1,000 ms for each of three answers.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use warren::hub::sync::Queue;
use warren::hub::{fill_random, run};
use warren::reactor::{
    ConnectedDatagramProtocol, DatagramTransport, DelayedCall, call_later, connect_udp, now,
};

const QUESTIONS: u32 = 3;

/// What is asked, how often, and since when.
struct Asking {
    question: [u8; 20],
    patience: Duration,
    asked: Cell<u32>,
    refused: Cell<u32>,
    since: Instant,
    again: RefCell<Option<DelayedCall>>,
    answer: Queue<Result<String, String>>,
}

struct TimeClient(Rc<Asking>);

impl ConnectedDatagramProtocol for TimeClient {
    fn start_protocol(&mut self, transport: &DatagramTransport) {
        ask(self.0.clone(), transport.clone());
    }

    fn datagram_received(&mut self, _transport: &DatagramTransport, data: &[u8]) {
        let Ok(answer) = <[u8; 20]>::try_from(data) else { return };
        if answer[..8] != self.0.question[..8] {
            // To somebody else's question, or not from the server at all.
            return;
        }
        let seconds = u64::from_be_bytes(answer[8..16].try_into().unwrap());
        let nanoseconds = u32::from_be_bytes(answer[16..].try_into().unwrap());
        let asked = self.0.asked.get();
        let text = format!("{} (asked {asked} times)", utc(seconds, nanoseconds));
        let _ = self.0.answer.put(Ok(text.replace("1 times", "once")));
    }

    fn connection_refused(&mut self, _transport: &DatagramTransport) {
        // It may be about to start.
        self.0.refused.set(self.0.refused.get() + 1);
    }
}

/// Asks, and once more when no answer has come in time; then it gives up.
fn ask(asking: Rc<Asking>, transport: DatagramTransport) {
    let asked = asking.asked.get();
    if asked == QUESTIONS {
        let server = transport.peer().map_or_else(String::new, |peer| peer.to_string());
        let took = now().saturating_duration_since(asking.since).as_secs_f32();
        let text = match asking.refused.get() {
            0 => format!(
                "no answer from {server} to {asked} questions in {took:.1} s: is it the right \
                 address, and does no firewall drop UDP?"
            ),
            refused => format!(
                "{server} has refused {refused} of {asked} questions: start udp_time_server there"
            ),
        };
        let _ = asking.answer.put(Err(text));
        return;
    }
    asking.asked.set(asked + 1);
    if let Err(error) = transport.write(&asking.question, None) {
        eprintln!("{error}");
    }
    let next = asking.clone();
    let again = call_later(asking.patience, move || ask(next, transport));
    *asking.again.borrow_mut() = Some(again);
}

/// A moment as people write it.
fn utc(seconds: u64, nanoseconds: u32) -> String {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut days, mut year) = (seconds / 86_400, 1970);
    while 365 + u64::from(leap(year)) <= days && year < 10_000 {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let milliseconds = nanoseconds / 1_000_000;
    let day = days + 1;
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milliseconds:03} UTC")
}

fn time(addr: SocketAddr, patience: Duration) -> Result<String, String> {
    let mut question = [0; 20];
    fill_random(&mut question[..8]);
    let asking = Rc::new(Asking {
        question,
        patience,
        asked: Cell::new(0),
        refused: Cell::new(0),
        since: now(),
        again: RefCell::default(),
        answer: Queue::unbounded(),
    });
    let port = connect_udp(addr, Box::new(TimeClient(asking.clone())));
    let _port = port.map_err(|error| error.to_string())?;
    let answer = asking.answer.get().map_err(|error| error.to_string())?;
    if let Some(again) = asking.again.take() {
        again.cancel();
    }
    answer
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or_else(|| "127.0.0.1:1037".into());
    let patience = arguments.next().and_then(|ms| ms.parse().ok()).unwrap_or(1000);
    let answer = match addr.parse() {
        Ok(addr) => run(move || time(addr, Duration::from_millis(patience))),
        Err(_) => Err(format!("{addr:?} is no address: 127.0.0.1:1037 is one")),
    };
    match answer {
        Ok(time) => {
            println!("{time}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
