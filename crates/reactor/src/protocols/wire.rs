//! The small services of old (Twisted's `protocols.wire`): [`Echo`], [`Discard`], [`Chargen`], [`Qotd`], [`Daytime`],
//! [`Time`]. Good for trying out a network, and as the shortest protocols there are.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Consumer, Producer, Protocol, Reason, Transport};

/// Sends back what it receives (RFC 862). It reads no faster than the peer does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Protocol for Echo {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn pause_producing(&mut self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_producing(&mut self, transport: &Transport) {
        transport.resume_reading();
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// Forgets what it receives (RFC 863).
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Protocol for Discard {
    fn connection_made(&mut self, _transport: &Transport) {}
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// Sends lines of all printable characters, each line shifted by one, as fast as the peer reads and until it closes
/// (RFC 864).
#[derive(Clone, Copy, Debug, Default)]
pub struct Chargen;

/// The characters of a line, without its end.
const NOISE_COLUMNS: u8 = 72;
/// The printable characters: `!` and 93 more after the space.
const NOISE_CHARACTERS: u8 = b'~' - b' ' + 1;

impl Protocol for Chargen {
    fn connection_made(&mut self, transport: &Transport) {
        transport.register_producer(Rc::new(Noise(transport.clone())), false);
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}

    fn read_connection_lost(&mut self, transport: &Transport) {
        // It would never have finished.
        transport.unregister_producer();
        transport.lose_connection();
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// Each piece is the whole pattern, after which it begins anew.
struct Noise(Transport);

impl Producer for Noise {
    fn resume_producing(&self) {
        self.0.write_with(|output| {
            for first in 0..NOISE_CHARACTERS {
                output.extend((0..NOISE_COLUMNS).map(|at| b' ' + (first + at) % NOISE_CHARACTERS));
                output.extend_from_slice(b"\r\n");
            }
        });
    }

    fn stop_producing(&self) {}
}

/// Sends a quote, and closes (RFC 865).
#[derive(Clone, Debug)]
pub struct Qotd {
    quote: Vec<u8>,
}

impl Qotd {
    /// Sends `quote`: a short text, with the ends of its lines.
    pub fn new(quote: impl Into<Vec<u8>>) -> Self {
        Self { quote: quote.into() }
    }
}

impl Protocol for Qotd {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&self.quote);
        transport.lose_connection();
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// Sends date and time as text, in UTC, and closes (RFC 867): `Sun Nov  6 08:49:37 1994`.
///
/// # Panics
/// When no hub runs on this thread, as a connection is made: the hub knows the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Daytime;

impl Protocol for Daytime {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(daytime(warren_hub::system_time()).as_bytes());
        transport.lose_connection();
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// Sends the seconds since the beginning of 1900, UTC, as four bytes, the highest first, and closes (RFC 868). They
/// begin anew in 2036. (Twisted's counts from 1970, which no client of this protocol expects.)
///
/// # Panics
/// When no hub runs on this thread, as a connection is made: the hub knows the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time;

/// From 1900 to 1970: 70 years, 17 of them with a leap day.
const SECONDS_1900_TO_1970: u64 = (70 * 365 + 17) * 86_400;

impl Protocol for Time {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(&time(warren_hub::system_time()).to_be_bytes());
        transport.lose_connection();
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

fn time(at: SystemTime) -> u32 {
    (unix_seconds(at) + SECONDS_1900_TO_1970) as u32
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// As C's `asctime`, with the line's end of the network.
fn daytime(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = unix_seconds(at);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let weekday = DAYS[(days % 7) as usize];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut year = 1970;
    let mut day = days;
    while year_days(year) <= day {
        day -= year_days(year);
        year += 1;
    }
    let mut month = 0;
    while month_days(year, month) <= day {
        day -= month_days(year, month);
        month += 1;
    }
    let (month, day) = (MONTHS[month], day + 1);
    format!("{weekday} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year}\r\n")
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

/// `month` counts from 0.
fn month_days(year: u64, month: usize) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Daytime, Discard, Echo, Qotd, Time, daytime, time};
    use crate::WriteLimits;
    use crate::testing::{End, TestConnection};

    #[test]
    fn an_echo_reads_no_faster_than_its_peer() {
        let mut connection = TestConnection::new(Box::new(Echo));
        let limits = WriteLimits { high_bytes: 3, low_bytes: 0 };
        connection.transport().set_write_buffer_limits(limits);
        connection.stall(true);
        connection.feed(b"abcd");
        connection.feed(b"not read");
        assert_eq!(connection.transport().buffered(), 4);
        connection.stall(false);
        connection.feed(b"efg");
        assert_eq!(connection.take_output(), b"abcdefg");
    }

    #[test]
    fn discard_says_nothing() {
        let mut connection = TestConnection::new(Box::new(Discard));
        connection.feed(b"anybody?");
        assert_eq!(connection.take_output(), b"");
    }

    #[test]
    fn a_quote_is_all_there_is() {
        let mut connection = TestConnection::new(Box::new(Qotd::new("Less is more.\r\n")));
        assert_eq!(connection.take_output(), b"Less is more.\r\n");
        assert_eq!(connection.closed(), Some(End::Graceful));
    }

    #[test]
    fn times_are_told_as_rfc_867_and_868_have_them() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(daytime(at(0)), "Thu Jan  1 00:00:00 1970\r\n");
        assert_eq!(daytime(at(784_111_777)), "Sun Nov  6 08:49:37 1994\r\n");
        assert_eq!(daytime(at(951_782_400)), "Tue Feb 29 00:00:00 2000\r\n");
        assert_eq!(daytime(at(4_107_542_399)), "Sun Feb 28 23:59:59 2100\r\n");
        // Examples of RFC 868.
        assert_eq!(time(at(0)), 2_208_988_800);
        assert_eq!(time(at(2_629_584_000 - 2_208_988_800)), 2_629_584_000);
        assert_eq!(time(at(u64::from(u32::MAX))), 2_208_988_799);
    }

    #[test]
    fn the_time_is_the_hubs() {
        warren_hub::run(|| {
            let mut daytime = TestConnection::new(Box::new(Daytime));
            assert_eq!(daytime.take_output().len(), 26);
            let mut time = TestConnection::new(Box::new(Time));
            assert_eq!(time.take_output().len(), 4);
            assert!(daytime.is_lost() && time.is_lost());
        });
    }
}
