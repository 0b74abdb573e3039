//! Several hubs, each on a thread of its own.

use std::fmt;
use std::io;
use std::num::NonZero;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use rustix::thread::CpuSet;

use crate::hub;
use crate::inbox::{HubGone, HubHandle};
use crate::options::{Options, hub_local};
use crate::remote_join::RemoteJoin;
use crate::report::RunInfo;
use crate::sim;
use crate::sync::Event;

/// Hubs that run until the group is shut down. Nothing moves between them by itself: what is spawned on one
/// stays there.
///
/// ```
/// use warren_hub::HubGroup;
///
/// let group = HubGroup::start(2)?;
/// let joins: Vec<_> =
///     (0..group.len()).map(|n| group.spawn_on(n, move || 10 * n)).collect::<Result<_, _>>()?;
/// let results: Vec<usize> = joins.into_iter().map(|join| join.join().unwrap()).collect();
/// assert_eq!(results, [0, 10]);
/// group.shutdown();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HubGroup {
    members: Vec<Member>,
}

struct Member {
    hub: HubHandle,
    thread: thread::JoinHandle<io::Result<()>>,
    stop: Box<dyn Fn() + Send + Sync>,
}

impl HubGroup {
    /// Starts `count` hubs.
    ///
    /// # Errors
    /// When the system refuses a thread or a hub. Those already started are ended. In a simulation: `Unsupported`.
    ///
    /// # Panics
    /// When `count` is 0.
    pub fn start(count: usize) -> io::Result<Self> {
        Self::start_with(count, |_| Options::new())
    }

    /// As [`start`](Self::start); hub `n` is run as `options(n)` says, such as pinned to a core.
    ///
    /// # Errors
    /// As [`start`](Self::start), also when there is no such core.
    ///
    /// # Panics
    /// When `count` is 0.
    pub fn start_with(count: usize, options: impl Fn(usize) -> Options) -> io::Result<Self> {
        assert!(count > 0, "a group needs a hub");
        if sim::World::current().is_some() {
            let text = "the hubs of a simulation are its nodes: threads would not go by its seed";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let mut group = Self { members: Vec::with_capacity(count) };
        for number in 0..count {
            match start_member(number, options(number)) {
                Ok(member) => group.members.push(member),
                Err(error) => {
                    group.shutdown();
                    return Err(error);
                }
            }
        }
        Ok(group)
    }

    /// Starts one hub for each core that this process may use.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn per_core() -> io::Result<Self> {
        Self::start(thread::available_parallelism().map_or(1, NonZero::get))
    }

    /// Starts one hub for each core that this process may use, and keeps it there.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn pinned() -> io::Result<Self> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        Self::start_with(cores.len(), |number| Options::new().pin_to(cores[number]))
    }

    /// How many hubs there are.
    #[expect(clippy::len_without_is_empty, reason = "a group is never empty")]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The handle of hub `index`.
    ///
    /// # Panics
    /// When there is no such hub.
    pub fn handle(&self, index: usize) -> &HubHandle {
        &self.members[index].hub
    }

    /// Runs `callback` on the loop of hub `index`.
    ///
    /// # Errors
    /// [`HubGone`].
    ///
    /// # Panics
    /// When there is no such hub.
    pub fn post(
        &self,
        index: usize,
        callback: impl FnOnce() + Send + 'static,
    ) -> Result<(), HubGone> {
        self.handle(index).post(callback)
    }

    /// Starts a fiber on hub `index`.
    ///
    /// # Errors
    /// [`HubGone`].
    ///
    /// # Panics
    /// When there is no such hub.
    pub fn spawn_on<T: Send + 'static>(
        &self,
        index: usize,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<RemoteJoin<T>, HubGone> {
        self.handle(index).spawn(body)
    }

    /// What the fibers of each hub do, see [`run_info`](crate::run_info); without the hubs that have ended.
    ///
    /// # Suspends
    /// On a fiber, until each hub has answered; blocks a thread without a hub.
    pub fn run_info(&self) -> Vec<RunInfo> {
        let asked = (0..self.len()).map(|number| self.spawn_on(number, crate::run_info));
        let asked: Vec<_> = asked.collect();
        asked.into_iter().filter_map(|answer| answer.ok()?.join().ok()).collect()
    }

    /// Kills all fibers and waits for the threads to end. Blocks: not to be called on a hub that must go on.
    ///
    /// # Panics
    /// When a callback that was posted to one of the hubs has panicked, with its payload.
    pub fn shutdown(self) {
        for member in &self.members {
            (member.stop)();
        }
        for member in self.members {
            match member.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a hub has failed"),
                Err(payload) => std::panic::resume_unwind(payload),
            }
        }
    }
}

impl fmt::Debug for HubGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubGroup").field("len", &self.len()).finish()
    }
}

/// Set when a hub is to end.
struct Stop(Event);

fn stop() -> Rc<Stop> {
    hub_local(|| Stop(Event::new()))
}

fn start_member(number: usize, options: Options) -> io::Result<Member> {
    let (started, handle) = mpsc::channel();
    let thread = thread::Builder::new().name(format!("warren-hub-{number}")).spawn(move || {
        options.run(move || {
            let _ = started.send(hub::with(|hub| hub.handle()));
            stop().0.wait();
        })
    })?;
    match handle.recv() {
        Ok(hub) => {
            let stop = {
                let hub = hub.clone();
                move || {
                    // A hub that has gone needs no stop.
                    let _ = hub.post(|| stop().0.set());
                }
            };
            Ok(Member { hub, thread, stop: Box::new(stop) })
        }
        Err(_) => match thread.join() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(io::Error::other("a hub ended before it started")),
            Err(payload) => std::panic::resume_unwind(payload),
        },
    }
}
