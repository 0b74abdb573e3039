//! What a run has found: in lines for people, and as JSON for programs.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::ledger::Faults;
use super::meter::{Counts, Latencies};

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The name of the run.
    pub id: String,
    /// How long was measured.
    pub seconds: f64,
    /// Messages handed to the server during the measurement, as all counts here.
    pub published: u64,
    /// Messages that the server has confirmed.
    pub confirmed: u64,
    /// Messages that it has refused to take.
    pub nacked: u64,
    /// Messages that it has given back, for no queue took them.
    pub returned: u64,
    /// Messages whose connection broke before their confirm came.
    pub in_doubt: u64,
    /// Messages delivered.
    pub consumed: u64,
    /// Of those, the ones flagged as delivered before.
    pub redelivered: u64,
    /// Messages published per second.
    pub publish_rate: f64,
    /// Messages delivered per second.
    pub consume_rate: f64,
    /// Bytes of bodies published per second.
    pub publish_bytes_rate: f64,
    /// Bytes of bodies delivered per second.
    pub consume_bytes_rate: f64,
    /// From the time a message was to be sent to its confirm.
    pub confirm_latency: Option<Latency>,
    /// From the time a message was to be sent to its delivery.
    pub deliver_latency: Option<Latency>,
    /// The server's process, where it can be seen.
    pub server: Option<Server>,
    /// Processor time of this program for each million messages delivered, or published where none were to be
    /// delivered.
    pub own_cpu_seconds_per_million: f64,
    /// Connections that broke and were opened again.
    pub reconnects: u64,
    /// What `--verify` has found.
    pub verify: Option<Verified>,
}

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// The least.
    pub min_us: f64,
    /// Half are below.
    pub p50_us: f64,
    /// Three quarters are below.
    pub p75_us: f64,
    /// 95 percent are below.
    pub p95_us: f64,
    /// 99 percent are below.
    pub p99_us: f64,
    /// 99.9 percent are below.
    pub p999_us: f64,
    /// The most.
    pub max_us: f64,
}

/// What the server has used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Server {
    /// Its process.
    pub pid: u32,
    /// Processor time during the measurement.
    pub cpu_seconds: f64,
    /// The same for each million messages delivered, or published where none were to be delivered.
    pub cpu_seconds_per_million: f64,
    /// Memory at the end.
    pub resident_bytes: u64,
}

/// What `--verify` has found.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// What was wrong.
    #[serde(flatten)]
    pub faults: Faults,
    /// Confirmed and not delivered, of a run without consumers: to be looked for with its ledger.
    pub missing: u64,
    /// Messages of others found in the queues.
    pub foreign: u32,
}

/// A line of progress.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since the start.
    pub seconds: f64,
    /// How long the interval was.
    pub interval: f64,
    /// What was counted in it.
    pub counts: Counts,
    /// Of the interval.
    pub confirm_latency: Option<Latency>,
    /// Of the interval.
    pub deliver_latency: Option<Latency>,
    /// Why the server takes no publishes.
    pub blocked: Option<String>,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        (!histogram.is_empty()).then(|| Self {
            min_us: histogram.min() as f64 / 1000.0,
            p50_us: at(0.5),
            p75_us: at(0.75),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1000.0,
        })
    }
}

impl Progress {
    pub(super) fn new(
        seconds: f64,
        interval: f64,
        counts: Counts,
        latencies: &Latencies,
        blocked: Option<String>,
    ) -> Self {
        let confirm_latency = Latency::of(&latencies.confirm);
        let deliver_latency = Latency::of(&latencies.deliver);
        Self { seconds, interval, counts, confirm_latency, deliver_latency, blocked }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |count: u64| thousands(count as f64 / self.interval);
        let counts = &self.counts;
        write!(f, "{:.1} s: sent {}/s", self.seconds, rate(counts.published))?;
        if 0 < counts.confirmed {
            write!(f, ", confirmed {}/s", rate(counts.confirmed))?;
        }
        write!(f, ", received {}/s", rate(counts.consumed))?;
        for (what, count) in [
            ("refused", counts.nacked),
            ("returned", counts.returned),
            ("redelivered", counts.redelivered),
        ] {
            if 0 < count {
                write!(f, ", {what} {}/s", rate(count))?;
            }
        }
        for (what, latency) in
            [("confirm", self.confirm_latency), ("deliver", self.deliver_latency)]
        {
            if let Some(latency) = latency {
                write!(f, ", {what} {} / {}", time(latency.p50_us), time(latency.p99_us))?;
            }
        }
        match &self.blocked {
            Some(reason) => write!(f, ", blocked: {reason}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |f: &mut fmt::Formatter<'_>, what, count: u64, rate, bytes: f64| {
            let (count, rate) = (thousands(count as f64), thousands(rate));
            writeln!(f, "{what:<10} {count} messages, {rate}/s, {:.1} MB/s", bytes / 1e6)
        };
        writeln!(f, "{}: {:.2} s", self.id, self.seconds)?;
        rate(f, "published", self.published, self.publish_rate, self.publish_bytes_rate)?;
        rate(f, "received", self.consumed, self.consume_rate, self.consume_bytes_rate)?;
        for (what, count) in [
            ("confirmed", self.confirmed),
            ("refused", self.nacked),
            ("returned", self.returned),
            ("in doubt", self.in_doubt),
            ("again", self.redelivered),
            ("reconnected", self.reconnects),
        ] {
            if 0 < count {
                writeln!(f, "{what:<10} {}", thousands(count as f64))?;
            }
        }
        for (what, latency) in
            [("confirm", self.confirm_latency), ("deliver", self.deliver_latency)]
        {
            let Some(latency) = latency else { continue };
            write!(f, "{what:<10} min {}", time(latency.min_us))?;
            for (name, value) in [
                ("p50", latency.p50_us),
                ("p75", latency.p75_us),
                ("p95", latency.p95_us),
                ("p99", latency.p99_us),
                ("p99.9", latency.p999_us),
                ("max", latency.max_us),
            ] {
                write!(f, ", {name} {}", time(value))?;
            }
            writeln!(f)?;
        }
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server     process {}, {:.2} s of processor time, {:.3} s per million messages, {:.1} MB resident",
                server.pid,
                server.cpu_seconds,
                server.cpu_seconds_per_million,
                server.resident_bytes as f64 / 1e6
            )?;
        }
        let Some(verified) = &self.verify else { return Ok(()) };
        let faults = &verified.faults;
        writeln!(
            f,
            "verified   {} lost, {} duplicated, {} reordered, {} damaged, {} invented",
            faults.lost, faults.duplicated, faults.reordered, faults.damaged, faults.invented
        )?;
        for (what, count) in [("missing", verified.missing), ("foreign", verified.foreign.into())] {
            if 0 < count {
                writeln!(f, "{what:<10} {}", thousands(count as f64))?;
            }
        }
        faults.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}

/// Microseconds, in a unit that suits them.
fn time(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A number whose digits stand in groups of three.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if 0 < index && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let numbers = [0.0, 999.4, 1000.0, 1_234_567.8].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,568"]);
        assert_eq!([999.0, 1500.0, 2e6].map(time), ["999 us", "1.50 ms", "2.00 s"]);
    }

    #[test]
    fn a_line_of_progress_tells_what_there_is_to_tell() {
        let mut latencies = Latencies::new();
        latencies.deliver.record(2_000_000).unwrap();
        let counts = Counts { published: 3000, consumed: 2000, nacked: 4, ..Counts::default() };
        let progress = Progress::new(5.0, 2.0, counts, &latencies, Some("low on memory".into()));
        assert_eq!(
            progress.to_string(),
            "5.0 s: sent 1,500/s, received 1,000/s, refused 2/s, deliver 2.00 ms / 2.00 ms, blocked: low on memory"
        );
    }
}
