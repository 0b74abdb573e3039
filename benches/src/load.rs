//! The load of `warren perf`, as measurements want it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use warren::perf::{self, Options, Report};
use warren_amqp::method::EncodeMethod;

/// Messages that are on their way at most: a publisher waits for its consumer.
pub(crate) const BACKLOG_MAX: u64 = 20_000;
/// Confirms that are owed at most, where nothing else is said.
pub(crate) const UNCONFIRMED_MAX: usize = 2_000;
/// Requests that are written at once, before their answers are read: so few that both directions fit into the
/// sockets' buffers.
pub(crate) const PIPELINE: usize = 500;

/// What `warren perf` does when nothing else is said, without lines of progress.
pub(crate) fn quiet(url: &str) -> Options {
    Options {
        interval: Duration::ZERO,
        // Longer than any server has taken that was still going on.
        confirm_timeout: Duration::from_secs(120),
        ..Options::new(url)
    }
}

/// Runs the load to its end.
pub(crate) fn measured(options: Options) -> Result<Report> {
    perf::run(&options, &AtomicBool::new(false), &mut |_| {})
}

/// As much as is done in so long a time, once the server has run in.
pub(crate) fn timed(time: Duration, options: Options) -> Result<Report> {
    measured(Options { time: Some(time), warm_up: time / 4, ..options })
}

/// Publishes so many messages, each confirmed, to what is declared.
pub(crate) fn fill(count: u64, options: Options) -> Result<Report> {
    let confirm = options.confirm.or(Some(UNCONFIRMED_MAX));
    measured(Options {
        consumers: 0,
        predeclared: true,
        pmessages: Some(count),
        confirm,
        ..options
    })
}

/// Takes so many messages out of these queues, which need no acknowledgements.
pub(crate) fn drain(url: &str, queues: &[String], count: u64) -> Result<Report> {
    measured(Options {
        producers: 0,
        queue: queues.to_vec(),
        predeclared: true,
        autoack: true,
        cmessages: Some(count),
        ..quiet(url)
    })
}

/// Bodies of so many bytes.
pub(crate) fn bytes(size: usize) -> Option<(usize, usize)> {
    Some((size, size))
}

/// The flags of persistent messages.
pub(crate) fn persistent() -> Vec<String> {
    vec!["persistent".into()]
}

/// Seconds of the server for each million messages.
pub(crate) fn cpu_per_million(report: &Report) -> f64 {
    report.server.map_or(f64::NAN, |server| server.cpu_seconds_per_million)
}

/// So many requests, pipelined.
pub(crate) fn calls<M: EncodeMethod>(
    client: &mut perf::Client,
    count: usize,
    method: impl Fn(usize) -> M,
) -> Result<()> {
    for start in (0..count).step_by(PIPELINE) {
        client.calls((start..count.min(start + PIPELINE)).map(&method))?;
    }
    Ok(())
}
