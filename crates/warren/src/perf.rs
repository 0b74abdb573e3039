//! `warren perf`: a load generator for any AMQP 0-9-1 server, as PerfTest is for RabbitMQ.
//!
//! ```text
//! options ─ plan ─┬─ worker (a thread, an epoll set) ─ links ─┬─ producer ─ pace, body
//!                 └─ worker ...                               └─ consumer ─ body
//!        report ◄─── meter (counters, histograms), ledger (--verify) ◄──┘
//! ```
//! Start at [`run`]. Producers and consumers do no I/O of their own: frames in, bytes to send out; a worker moves the
//! bytes. With a rate the loop is open: each message has a time at which it is to be sent, and its latency counts from
//! then on, so that a server which is late is not spared the messages that waited for it.
//!
//! The measurements of `benches` use the same generator: fill in [`Options`] and call [`run`].

mod body;
mod client;
mod clock;
mod consumer;
mod ledger;
mod link;
mod meter;
mod options;
mod pace;
mod perftest;
mod plan;
mod process;
mod producer;
mod report;
mod shared;
mod socket;
mod worker;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use warren_amqp::method::channel as amqp_channel;

pub use client::Client;
pub use ledger::Faults;
pub use meter::Counts;
pub use options::{Message, Options};
pub use perftest::arguments;
pub use process::processor_time;
pub use report::{Latency, Progress, Report, Server, Verified};

use clock::SECOND;
use consumer::Consumer;
use ledger::Ledger;
use link::Link;
use meter::{Latencies, Meter};
use plan::{Plan, nanoseconds};
use producer::Producer;
use shared::Shared;
use worker::{GLANCE, Role, Slot, Stage, Worker};

/// Exit code of a run in which `--verify` found a fault.
pub const EXIT_UNVERIFIED: u8 = 3;
/// Exit code of a run in which messages were refused or returned.
pub const EXIT_REFUSED: u8 = 4;
/// How soon a server that is not there yet is looked for again.
const RETRY: Duration = Duration::from_millis(50);
/// How long consumers have nothing to do before `--exit-when` ends the run.
const IDLE: Duration = Duration::from_secs(1);
/// How long connections may be down at the end of a run with `--verify`.
const DOWN_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command: prints progress and result.
///
/// # Errors
/// As [`run`], and when a file cannot be written.
pub fn command(options: &Options) -> Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let to_stdout = options.output_file.as_deref() == Some(Path::new("-"));
    let report = run(options, &interrupted, &mut |line| match line {
        Line::Progress(progress) if !to_stdout => println!("{progress}"),
        Line::Progress(_) => {}
        Line::Event(event) => eprintln!("warren perf: {event}"),
    })?;
    if let Some(path) = &options.output_file {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        if to_stdout {
            std::io::stdout().write_all(&json)?;
        } else {
            fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if !to_stdout {
        print!("{report}");
    }
    Ok(match &report.verify {
        Some(verified) if !verified.faults.is_empty() => ExitCode::from(EXIT_UNVERIFIED),
        None if 0 < report.nacked + report.returned => ExitCode::from(EXIT_REFUSED),
        _ => ExitCode::SUCCESS,
    })
}

/// What a run says while it goes on.
#[derive(Debug)]
pub enum Line<'a> {
    /// The figures of an interval.
    Progress(&'a Progress),
    /// Something that happened, such as a connection that broke.
    Event(&'a str),
}

/// Runs the load until its time or its messages are over, or `interrupted` says so.
///
/// # Errors
/// When the options contradict one another, the server cannot be reached or refuses something, a connection breaks
/// and is not to be opened again, or a confirm does not come in time.
pub fn run(
    options: &Options,
    interrupted: &AtomicBool,
    say: &mut dyn FnMut(Line<'_>),
) -> Result<Report> {
    let plan = Arc::new(Plan::new(options)?);
    let ledger = options.verify.then(|| open_ledger(&plan)).transpose()?;
    let mut control = first_link(&plan)?;
    control.call(1, &amqp_channel::Open {}, "channel.open-ok")?;
    control.declare(&plan, 1, &(0..plan.queues.len()).collect::<Vec<_>>())?;
    let shared = Arc::new(Shared::new(
        options.producers,
        options.consumers,
        options.backlog_max,
        plan.copies,
        ledger,
    ));
    let mut crew = Crew::start(&plan, &shared)?;
    control.close();
    let outcome = Run { plan: &plan, shared: &shared, crew: &mut crew, interrupted, say }.go();
    shared.set_stage(Stage::Closing);
    crew.join();
    let mut report = outcome?;
    if let Some(ledger) = shared.ledger() {
        if let Some(path) = &options.ledger {
            ledger.save(path)?;
        }
        let consumed = 0 < options.consumers;
        let faults = ledger.close(consumed);
        let missing = if consumed { 0 } else { ledger.missing() };
        if faults.is_empty() && missing == 0 && !options.predeclared {
            let mut control = Link::open(&plan, 0)?;
            control.call(1, &amqp_channel::Open {}, "channel.open-ok")?;
            control.delete(&plan, 1)?;
            control.close();
        }
        report.verify = Some(Verified { faults, missing, foreign: ledger.foreign() });
    }
    Ok(report)
}

/// Waits for a server that is being started, as long as the options allow.
fn first_link(plan: &Plan) -> Result<Link> {
    let start = Instant::now();
    loop {
        match Link::open(plan, 0) {
            Err(_) if start.elapsed() < plan.options.servers_startup_timeout => {
                thread::sleep(RETRY)
            }
            outcome => return outcome,
        }
    }
}

fn open_ledger(plan: &Plan) -> Result<Ledger> {
    // Two runs at the same time do not have the same.
    let run = (clock::now() / 1000) as u32 ^ std::process::id().rotate_left(16);
    match &plan.options.ledger {
        Some(path) => Ledger::load(path, run, &plan.queues),
        None => Ok(Ledger::new(run, &plan.queues)),
    }
}

/// The worker threads.
struct Crew {
    meters: Vec<Arc<Meter>>,
    threads: Vec<thread::JoinHandle<()>>,
    errors: Receiver<anyhow::Error>,
}

impl Crew {
    /// Starts threads with their shares of the connections; returns when all of these are there.
    fn start(plan: &Arc<Plan>, shared: &Arc<Shared>) -> Result<Self> {
        let options = &plan.options;
        let connections = options.producers + options.consumers;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let count = match options.threads {
            // The server wants some of them, too.
            0 => (processors / 2).max(2).min(processors).min(connections),
            count => count.min(connections),
        };
        let mut shares: Vec<Vec<Slot>> = (0..count).map(|_| Vec::new()).collect();
        // Producers and their consumers on different threads, where there is more than one.
        for place in 0..options.producers {
            let producer = Box::new(Producer::new(plan, place, shared.ledger()));
            let slot = Slot::new(place, place, Role::Producer(producer));
            shares[place % count].push(slot);
        }
        for place in 0..options.consumers {
            let consumer = Box::new(Consumer::new(plan, place));
            let slot = Slot::new(options.producers + place, place, Role::Consumer(consumer));
            shares[(place + 1) % count].push(slot);
        }
        let (error_sender, errors) = channel();
        let (ready_sender, ready) = channel();
        let mut crew = Self { meters: Vec::new(), threads: Vec::new(), errors };
        let mut starters = Vec::new();
        for slots in shares {
            let meter = Arc::new(Meter::default());
            let mut worker = Worker::new(plan.clone(), shared.clone(), meter.clone(), slots)?;
            let (error_sender, ready_sender) = (error_sender.clone(), ready_sender.clone());
            let (starter, started) = channel::<()>();
            starters.push(starter);
            crew.meters.push(meter);
            crew.threads.push(thread::spawn(move || {
                let connected = worker.connect();
                let failed = connected.is_err();
                let _ = ready_sender.send(connected);
                // Nobody starts it when another one has failed.
                if !failed && started.recv().is_ok() {
                    match worker.run() {
                        Ok(()) => worker.close(),
                        Err(error) => drop(error_sender.send(error)),
                    }
                }
            }));
        }
        for _ in 0..count {
            ready.recv().expect("every worker says how it fared")?;
        }
        shared.set_start(clock::now());
        for starter in starters {
            // Its worker waits for this.
            let _ = starter.send(());
        }
        Ok(crew)
    }

    fn counts(&self) -> Counts {
        self.meters.iter().map(|meter| meter.counts()).fold(Counts::default(), Counts::plus)
    }

    /// Lets all end, and counts. A worker counts at the end of its turn, so what has ended the run may have been
    /// counted before what led to it.
    fn settle(&self, shared: &Shared) -> Counts {
        shared.set_stage(Stage::Closing);
        while !self.threads.iter().all(thread::JoinHandle::is_finished) {
            thread::sleep(GLANCE);
        }
        self.counts()
    }

    fn drain_latencies(&self, sum: &mut Latencies) {
        self.meters.iter().for_each(|meter| meter.drain_latencies(sum));
    }

    fn join(self) {
        for thread in self.threads {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

/// The thread that watches the others.
struct Run<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    crew: &'a mut Crew,
    interrupted: &'a AtomicBool,
    say: &'a mut dyn FnMut(Line<'_>),
}

/// What was there when the measurement began.
struct Before {
    time: u64,
    counts: Counts,
    cpu: Option<Duration>,
    own_cpu: Duration,
}

impl Run<'_> {
    fn go(&mut self) -> Result<Report> {
        let options = &self.plan.options;
        let uri = self.plan.server(0);
        let pid = options.server_pid.or_else(|| process::listening_on(&uri.host, uri.port));
        let cpu = || pid.and_then(|pid| processor_time(Path::new(&format!("/proc/{pid}"))));
        let start = self.shared.start();
        let warm = start + nanoseconds(options.warm_up);
        let end = options.time.map(|time| warm + nanoseconds(time));
        let interval = nanoseconds(options.interval);
        let (mut total, mut recent) = (Latencies::new(), Latencies::new());
        let mut before =
            Before { time: start, counts: Counts::default(), cpu: cpu(), own_cpu: own_cpu() };
        let mut is_warm = options.warm_up.is_zero();
        let (mut shown_at, mut shown) = (start, Counts::default());
        let mut quiet = Quiet::new();
        let mut idle = Idle { since: Instant::now(), consumed: 0 };
        loop {
            thread::sleep(GLANCE);
            let now = clock::now();
            if let Ok(error) = self.crew.errors.try_recv() {
                return Err(error);
            }
            for line in self.shared.take_lines() {
                (self.say)(Line::Event(&line));
            }
            if !is_warm && warm <= now {
                is_warm = true;
                self.crew.drain_latencies(&mut recent);
                recent = Latencies::new();
                let counts = self.crew.counts();
                before = Before { time: now, counts, cpu: cpu(), own_cpu: own_cpu() };
            }
            let counts = self.crew.counts();
            let over = end.is_some_and(|end| end <= now)
                || self.interrupted.load(Ordering::Relaxed)
                || idle.is_over(self.plan, counts)?;
            let (producers_left, consumers_left) = self.shared.left();
            let sent = 0 < options.producers && producers_left == 0;
            if over || sent {
                self.shared.set_stage(Stage::Draining);
            }
            let finished = match self.shared.stage() {
                Stage::Running if options.verify && options.producers == 0 => {
                    self.is_drained(counts) || quiet.is_over(self, counts)
                }
                Stage::Running => 0 < options.consumers && consumers_left == 0,
                // Without verification and counts the end of the time is the end.
                _ if over && !options.verify => true,
                _ => self.is_drained(counts) || quiet.is_over(self, counts),
            };
            if finished || (interval != 0 && shown_at + interval <= now) {
                self.crew.drain_latencies(&mut recent);
                if interval != 0 && shown_at + interval <= now {
                    let seconds = |time: u64| time as f64 / SECOND as f64;
                    let progress = Progress::new(
                        seconds(now - start),
                        seconds(now - shown_at),
                        counts.minus(shown),
                        &recent,
                        self.shared.blocked(),
                    );
                    (self.say)(Line::Progress(&progress));
                    (shown_at, shown) = (now, counts);
                    self.save_ledger()?;
                }
                if is_warm {
                    total.add(&recent);
                }
                recent = Latencies::new();
            }
            if finished {
                let used =
                    cpu().zip(before.cpu).map(|(after, before)| after.saturating_sub(before));
                let server = pid.zip(used);
                let counts = if over { counts } else { self.crew.settle(self.shared) };
                return Ok(self.report(now, counts, &before, &total, server));
            }
        }
    }

    /// What one run has published, another may look for.
    fn save_ledger(&self) -> Result<()> {
        match (self.shared.ledger(), &self.plan.options.ledger) {
            (Some(ledger), Some(path)) => ledger.save(path),
            _ => Ok(()),
        }
    }

    /// Whether all that is to come has come.
    fn is_drained(&self, counts: Counts) -> bool {
        let options = &self.plan.options;
        let owed = options.window().is_some() || options.ptxsize.is_some();
        let settled = counts.confirmed + counts.nacked + self.shared.in_doubt();
        if owed && settled < counts.published {
            return false;
        }
        if options.consumers == 0 {
            return true;
        }
        match self.shared.ledger() {
            Some(ledger) => ledger.missing() == 0,
            None => {
                let (_, consumers_left) = self.shared.left();
                let taken = counts.published * self.plan.copies <= counts.consumed;
                consumers_left == 0 || (options.cmessages.is_none() && taken)
            }
        }
    }

    fn report(
        &self,
        now: u64,
        counts: Counts,
        before: &Before,
        latencies: &Latencies,
        server: Option<(u32, Duration)>,
    ) -> Report {
        let counts = counts.minus(before.counts);
        let seconds = ((now - before.time) as f64 / SECOND as f64).max(1e-9);
        let rate = |count: u64| count as f64 / seconds;
        let messages =
            if 0 < self.plan.options.consumers { counts.consumed } else { counts.published };
        Report {
            id: self.plan.id.clone(),
            seconds,
            published: counts.published,
            confirmed: counts.confirmed,
            nacked: counts.nacked,
            returned: counts.returned,
            in_doubt: self.shared.in_doubt(),
            consumed: counts.consumed,
            redelivered: counts.redelivered,
            publish_rate: rate(counts.published),
            consume_rate: rate(counts.consumed),
            publish_bytes_rate: rate(counts.published_bytes),
            consume_bytes_rate: rate(counts.consumed_bytes),
            confirm_latency: Latency::of(&latencies.confirm),
            deliver_latency: Latency::of(&latencies.deliver),
            server: server.map(|(pid, cpu)| Server {
                pid,
                cpu_seconds: cpu.as_secs_f64(),
                cpu_seconds_per_million: cpu.as_secs_f64() * 1e6 / (messages.max(1)) as f64,
                resident_bytes: process::resident_bytes(pid),
            }),
            own_cpu_seconds_per_million: own_cpu().saturating_sub(before.own_cpu).as_secs_f64()
                * 1e6
                / messages.max(1) as f64,
            reconnects: self.shared.reconnects(),
            verify: None,
        }
    }
}

fn own_cpu() -> Duration {
    processor_time(Path::new("/proc/self")).unwrap_or_default()
}

/// What `--exit-when` waits for.
struct Idle {
    since: Instant,
    consumed: u64,
}

impl Idle {
    fn is_over(&mut self, plan: &Plan, counts: Counts) -> Result<bool> {
        let Some(when) = &plan.options.exit_when else { return Ok(false) };
        let begins = plan.options.consumer_start_delay;
        if counts.consumed != self.consumed || self.since.elapsed() < IDLE {
            if counts.consumed != self.consumed {
                *self = Self { since: Instant::now(), consumed: counts.consumed };
            }
            return Ok(false);
        }
        if counts.consumed == 0 && self.since.elapsed() < begins + IDLE {
            return Ok(false);
        }
        if when == "idle" {
            return Ok(true);
        }
        // Looked at once a second.
        self.since = Instant::now();
        let mut link = Link::open(plan, 0)?;
        link.call(1, &amqp_channel::Open {}, "channel.open-ok")?;
        let empty = plan
            .queues
            .iter()
            .try_fold(true, |empty, queue| anyhow::Ok(empty && link.ready(1, queue)? == 0))?;
        link.close();
        Ok(empty)
    }
}

/// Whether nothing happens any more.
struct Quiet {
    since: Instant,
    up_since: Instant,
    counts: Counts,
}

impl Quiet {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, up_since: now, counts: Counts::default() }
    }

    /// Nothing was counted for the time that the options give, and all connections were there.
    fn is_over(&mut self, run: &Run<'_>, counts: Counts) -> bool {
        let is_up = run.shared.down() == 0;
        if counts != self.counts || is_up {
            self.up_since = Instant::now();
        }
        if counts != self.counts || !is_up {
            self.since = Instant::now();
            self.counts = counts;
        }
        run.plan.options.shutdown_timeout < self.since.elapsed()
            || DOWN_PATIENCE < self.up_since.elapsed()
    }
}
