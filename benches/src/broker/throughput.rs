//! (a) to (d): as many messages as go through, published and consumed at the same time.

use anyhow::Result;
use warren::perf::{Options, Report};

use super::{Bench, Case, Goal, Row, each};
use crate::load::{BACKLOG_MAX, bytes, cpu_per_million, persistent, quiet};
use crate::table::median;

pub(super) const TINY: Case = Case {
    letter: 'a',
    title: "16 B, transient",
    story: "One publisher without confirms, one consumer without acknowledgements, at most 20,000 messages on their way.",
    run: |bench| {
        let options = |url: &str| Options { size: bytes(16), autoack: true, ..quiet(url) };
        rows(bench, options, [13.0, 25.0, 0.4])
    },
};

pub(super) const SMALL: Case = Case {
    letter: 'b',
    title: "12 B, persistent and flushed, two and two",
    story: "Two publishers with at most 192 unconfirmed messages each, two consumers with a prefetch of 200 that acknowledge 200 \
            at once, one queue.",
    run: |bench| {
        let options = |url: &str| Options {
            size: bytes(12),
            flag: persistent(),
            producers: 2,
            consumers: 2,
            confirm: Some(192),
            qos: 200,
            multi_ack_every: 200,
            ..quiet(url)
        };
        rows(bench, options, [16.0, 16.0, 0.95])
    },
};

pub(super) const CONFIRMED: Case = Case {
    letter: 'c',
    title: "1 KiB, persistent and flushed",
    story: "One publisher with at most 1,000 unconfirmed messages, one consumer that acknowledges 100 at once.",
    run: |bench| {
        let options = |url: &str| Options {
            size: bytes(1024),
            flag: persistent(),
            confirm: Some(1000),
            multi_ack_every: 100,
            ..quiet(url)
        };
        rows(bench, options, [12.0, 12.0, 2.1])
    },
};

pub(super) const LARGE: Case = Case {
    letter: 'd',
    title: "1 KiB, transient",
    story: "As (a), with larger messages.",
    run: |bench| {
        let options = |url: &str| Options { size: bytes(1024), autoack: true, ..quiet(url) };
        rows(bench, options, [7.5, 7.5, 1.2])
    },
};

/// Targets: times the rate, times less processor time, and that in seconds.
fn rows(
    bench: &Bench,
    options: impl Fn(&str) -> Options,
    [rate, cpu, most]: [f64; 3],
) -> Result<Vec<Row>> {
    let measured = bench.both(|_, side| measure(bench, options(&side.url)))?;
    Ok(vec![
        Row::rate("messages/s", each(&measured, |runs| runs.rate)).goal(Goal::Times(rate)),
        Row::cost("server's CPU, s per million", each(&measured, |runs| runs.cpu))
            .goal(Goal::Times(cpu))
            .goal(Goal::AtMost(most)),
        Row::note("the generator's CPU, s per million", each(&measured, |runs| runs.own_cpu)),
        Row::note("spread of the rounds, percent", each(&measured, |runs| runs.spread)),
    ])
}

/// Some rounds.
pub(super) struct Runs {
    pub(super) rate: f64,
    pub(super) cpu: f64,
    own_cpu: f64,
    /// Between the rates, in percent of the lowest.
    spread: f64,
}

/// The middle of some rounds, each figure for itself.
pub(super) fn measure(bench: &Bench, options: Options) -> Result<Runs> {
    let options = Options { backlog_max: Some(BACKLOG_MAX), ..options };
    let runs = (0..bench.rounds).map(|_| bench.timed(options.clone()));
    let runs = runs.collect::<Result<Vec<Report>>>()?;
    let middle = |of: fn(&Report) -> f64| median(runs.iter().map(of).collect());
    let rates = || runs.iter().map(|run| run.consume_rate);
    let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    Ok(Runs {
        rate: middle(|run| run.consume_rate),
        cpu: middle(cpu_per_million),
        own_cpu: middle(|run| run.own_cpu_seconds_per_million),
        spread: (most / least - 1.0) * 100.0,
    })
}
