//! A world in memory that a seed decides: many hubs on one thread, with a clock that jumps, a network that loses and
//! disks that forget.
//!
//! Code that uses this crate for time, sockets, files and chance runs here unchanged. In a simulation nothing is awaited:
//! an hour of timeouts takes as long as the work between them. The seed alone decides which node goes on, which of its
//! fibers, what is late, lost or torn; so a failure that a seed has found is found by it again.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use warren_hub::net::{TcpListener, TcpStream};
//! use warren_hub::sim;
//!
//! let outcome = sim::run(7, |world| {
//!     world.net().latency(Duration::from_millis(10)..=Duration::from_millis(50));
//!     world.node("greeter", || {
//!         let listener = TcpListener::bind("0.0.0.0:80").unwrap();
//!         for stream in listener.incoming() {
//!             stream.unwrap().write_all(b"hello").unwrap();
//!         }
//!     });
//!     let mut text = String::new();
//!     // Refused, if the greeter's first turn has not come yet.
//!     let mut stream = loop {
//!         match TcpStream::connect("greeter:80") {
//!             Ok(stream) => break stream,
//!             Err(_) => warren_hub::sleep(Duration::from_millis(5)),
//!         }
//!     };
//!     stream.read_to_string(&mut text).unwrap();
//!     text
//! });
//! assert_eq!(outcome.value, "hello");
//! assert!(outcome.elapsed >= Duration::from_millis(30), "three times over the network");
//! ```
//!
//! # What a run must not depend on
//! On anything but the seed, which [`check`] verifies by running each seed twice and comparing [`Outcome::trace_hash`]:
//! not on `Instant::now`, a `HashMap`'s order with the standard hasher, the addresses of objects, other threads.
//! Time is [`World::now`] or [`crate::now`]; [`crate::offload`] runs its job on the same thread, after a while.
//! `WARREN_SIM_TRACE=1` prints each step, to find where two runs part.
//!
//! # What fails a run
//! A panic of the closure, or of a node's `main`. That of any other fiber is its handle's, as outside: join those that
//! assert something.
//!
//! # What there is not
//! What needs the kernel itself (signals, child processes, descriptors from elsewhere) is refused with
//! `Unsupported`, as are the threads of a [`HubGroup`](crate::HubGroup): the hubs of a simulation are its nodes.

mod disk;
mod driver;
mod net;
mod node;
mod random;
mod trace;
mod world;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::hub;
use world::{Core, Failure};

pub use disk::Disk;
pub(crate) use driver::SimDriver;
pub use net::Net;
pub use node::Node;
pub use random::Random;
pub use world::World;

/// What a simulation has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What the closure has returned.
    pub value: T,
    /// A digest of all that happened: when, on which node, in which fiber, what.
    pub trace_hash: u64,
    /// Turns of all the hubs.
    pub turns: u64,
    /// Time that passed in the simulation.
    pub elapsed: Duration,
}

/// Runs `main` on a node of a world that `seed` decides, until it returns. The other nodes are ended then.
///
/// # Panics
/// When `main` or that of a node does, with its payload; when nothing can happen any more (with who waits for what); past a
/// [limit](Simulation); when a hub runs on this thread. The seed is printed then.
pub fn run<T: 'static>(seed: u64, main: impl FnOnce(&World) -> T + 'static) -> Outcome<T> {
    Simulation::new(seed).run(main)
}

/// Runs `scenario` twice with each of the seeds, and compares. With `WARREN_SIM_SEED` in the environment, with those that
/// it names instead: the seed that a failure has printed, or a range, see [`seeds`].
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{sim, sleep, spawn};
///
/// sim::check(0..10, |world| {
///     let other = spawn(|| sleep(Duration::from_secs(3600)));
///     other.join().unwrap();
///     assert!(world.now() >= Duration::from_secs(3600));
/// });
/// ```
///
/// # Panics
/// As [`run`], and when two runs of a seed differ.
pub fn check<T: 'static>(
    seeds: impl IntoIterator<Item = u64>,
    scenario: impl Fn(&World) -> T + 'static,
) {
    let scenario = Rc::new(scenario);
    for seed in self::seeds(seeds) {
        let once = || {
            let scenario = scenario.clone();
            let outcome = run(seed, move |world| drop(scenario(world)));
            (outcome.trace_hash, outcome.turns, outcome.elapsed)
        };
        let (first, second) = (once(), once());
        assert_eq!(
            first, second,
            "two runs of seed {seed} differ: the scenario depends on more than the seed. \
             Run with WARREN_SIM_SEED={seed} WARREN_SIM_TRACE=1 to see where they part"
        );
    }
}

/// The seeds to run: those given, or what `WARREN_SIM_SEED` names: one (`7`), or all from one to another (`0..5000`), for
/// a search that may take longer than a test.
///
/// # Panics
/// When it names none.
pub fn seeds(seeds: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let Ok(wanted) = std::env::var("WARREN_SIM_SEED") else { return seeds.into_iter().collect() };
    let range = match wanted.split_once("..") {
        Some((first, end)) => first.parse().ok().zip(end.parse().ok()),
        None => wanted.parse().ok().map(|seed: u64| (seed, seed + 1)),
    };
    match range {
        Some((first, end)) if first < end => (first..end).collect(),
        _ => panic!("WARREN_SIM_SEED={wanted} is neither a seed nor a range such as 0..100"),
    }
}

/// Whether to misbehave here, for once: always false outside a simulation. In one, half of the places that ask are at
/// peace for the whole run, and the others are told yes with `probability`: so a rare case is met often in some runs,
/// and the common one in others. What is done then must be legal, such as a short read or a full queue.
///
/// ```
/// use warren_hub::sim;
///
/// let batch = if sim::buggify(0.1) { 1 } else { 64 };
/// assert_eq!(batch, 64);
/// ```
#[track_caller]
pub fn buggify(probability: f64) -> bool {
    let place = Location::caller();
    hub::try_with(|hub| {
        let core = hub.driver.simulation()?.core();
        let place = trace::digest(place.file().as_bytes())
            ^ (u64::from(place.line()) << 32 | u64::from(place.column()));
        let disturbed = random::mix(place ^ core.seed) & 1 == 0;
        Some(disturbed && core.random.chance(probability))
    })
    .flatten()
    .unwrap_or(false)
}

/// Settings of a simulation.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::sim::Simulation;
///
/// let outcome = Simulation::new(1).time_limit(Duration::from_secs(60)).run(|world| world.seed());
/// assert_eq!(outcome.value, 1);
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing before `run`"]
pub struct Simulation {
    seed: u64,
    time_max: Duration,
    turns_max: u64,
    print: bool,
}

impl Simulation {
    /// At most a day of simulated time and ten million turns.
    pub fn new(seed: u64) -> Self {
        let print = std::env::var_os("WARREN_SIM_TRACE").is_some();
        Self { seed, time_max: Duration::from_secs(24 * 3600), turns_max: 10_000_000, print }
    }

    /// The simulation fails when it comes to this time.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time_max = time;
        self
    }

    /// The simulation fails when the hubs have had so many turns: what waits for nothing and never ends takes no time.
    pub fn turn_limit(mut self, turns: u64) -> Self {
        self.turns_max = turns;
        self
    }

    /// As [`run`].
    ///
    /// # Panics
    /// As [`run`].
    pub fn run<T: 'static>(&self, main: impl FnOnce(&World) -> T + 'static) -> Outcome<T> {
        assert!(hub::try_with(|_| ()).is_none(), "a hub already runs on this thread");
        let core = Core::new(self.clone());
        let value = Rc::new(Cell::new(None));
        let (world, place) = (World(core.clone()), value.clone());
        let controller = core.add_machine("controller");
        controller.start(&core, Box::new(move || place.set(Some(main(&world)))));
        let ran = catch_unwind(AssertUnwindSafe(|| core.run()));
        let (trace_hash, turns, elapsed) = (core.trace_hash(), core.turns(), core.now());
        core.tear_down();
        let seed = self.seed;
        let told = |payload| {
            eprintln!(
                "the simulation has failed with seed {seed}: WARREN_SIM_SEED={seed} repeats it"
            );
            resume_unwind(payload)
        };
        match ran {
            Ok(Ok(())) => match value.take() {
                Some(value) => Outcome { value, trace_hash, turns, elapsed },
                None => panic!("the simulation's controller was killed; its seed is {seed}"),
            },
            Ok(Err(Failure::Report(text))) => {
                panic!("{text}\nWARREN_SIM_SEED={seed} repeats it")
            }
            Ok(Err(Failure::Panic(payload))) | Err(payload) => told(payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{TcpListener, TcpStream, UdpSocket};

    /// A world's parts know each other: when it ends they must let go.
    #[test]
    fn nothing_of_a_world_is_left() {
        let outcome = run(1, |world| {
            world.node("peer", || {
                let listener = TcpListener::bind("0.0.0.0:1").unwrap();
                let _socket = UdpSocket::bind("0.0.0.0:2").unwrap();
                let _held: Vec<_> = listener.incoming().collect();
            });
            let dead = world.node("dead", || crate::sleep(Duration::from_secs(60)));
            crate::sleep(Duration::from_millis(5));
            let stream = TcpStream::connect("peer:1").unwrap();
            crate::spawn(move || std::io::Read::read(&mut &stream, &mut [0]).map(drop));
            crate::spawn(|| crate::fs::write("/f", b"x").map(drop));
            crate::spawn(|| crate::offload(|| ()));
            crate::yield_now();
            dead.crash();
            Rc::downgrade(&world.0)
        });
        assert_eq!(outcome.value.strong_count(), 0);
    }
}
