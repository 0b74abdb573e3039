//! Finds the fiber that keeps its hub from turning: gevent's monitor thread.
//!
//! ```text
//!   hub's thread                           monitor's thread
//!   pulse: 0 asleep, else a count          looks every quarter of the limit
//!   that each resume and turn moves on     same count for longer than the limit: signals the hub's thread
//!   the signal's handler notes the calls   waits for that, finds the names, reports
//! ```
//! The handler runs on the blocked thread, so it may look at the hub; it allocates nothing and takes no lock.

use std::cell::UnsafeCell;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::{Pid, gettid};

use crate::hub;
use crate::join::FiberId;
use crate::report::Stack;

/// Calls that the handler notes.
const FRAMES_MAX: usize = 64;
/// Bytes of a fiber's name that it notes.
const NAME_BYTES_MAX: usize = 64;
/// How long a blocked thread may take to run the handler, which it cannot while it sleeps uninterruptibly.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a hub shows of its life to other threads.
pub(crate) struct Pulse {
    /// 0 while the hub waits in the kernel; otherwise moved on by each resume and each turn.
    beat: AtomicU64,
}

impl Pulse {
    pub(crate) const fn new() -> Self {
        Self { beat: AtomicU64::new(1) }
    }

    /// Called by the hub only.
    pub(crate) fn beat(&self, count: u64) {
        self.beat.store(count, Ordering::Relaxed);
    }
}

/// A hub that did not turn for too long.
#[derive(Debug)]
#[non_exhaustive]
pub struct Blocked {
    /// The name of the hub's thread.
    pub thread: String,
    /// For how long, at least, when it was noticed.
    pub since: Duration,
    /// The fiber that runs; `None`: the loop itself, in a callback. Also when the thread could not be looked at.
    pub fiber: Option<FiberId>,
    /// The fiber's name, or the beginning of it.
    pub name: Option<String>,
    /// Where the fiber was spawned.
    pub spawned_at: Option<&'static Location<'static>>,
    /// Where the thread stood; empty when it could not be looked at.
    pub stack: Stack,
}

type Report = Arc<dyn Fn(Blocked) + Send + Sync>;

/// Watches the hub that made it, until it is dropped or the hub ends.
#[must_use = "dropping it ends the watch"]
pub struct Watchdog(Arc<Watched>);

struct Watched {
    pulse: Arc<Pulse>,
    tid: Pid,
    thread: String,
    limit: Duration,
    report: Report,
}

/// The hubs that are watched.
static WATCHED: Mutex<Vec<Weak<Watched>>> = Mutex::new(Vec::new());

impl Watchdog {
    /// Reports each time this thread's hub does not turn for `limit`: a fiber computes for so long, or calls
    /// something that blocks the thread. Once per blockage. By a log line at the level `warn`.
    ///
    /// Uses the signal `SIGURG`, which nobody minds, to look at the thread.
    ///
    /// # Panics
    /// When no hub runs on this thread, and when the system refuses the monitor's thread.
    pub fn start(limit: Duration) -> Self {
        Self::with_report(limit, |blocked| {
            tracing::warn!(
                thread = %blocked.thread,
                since_ms = blocked.since.as_millis() as u64,
                "the event loop is blocked by {}\n{}",
                blocked.culprit(),
                blocked.stack
            );
        })
    }

    /// As [`start`](Self::start), with a report of one's own. It is called on the monitor's thread.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn with_report(limit: Duration, report: impl Fn(Blocked) + Send + Sync + 'static) -> Self {
        let watched = Arc::new(Watched {
            pulse: hub::with(|hub| hub.pulse.clone()),
            tid: gettid(),
            thread: thread::current().name().unwrap_or("unnamed").to_owned(),
            limit,
            report: Arc::new(report),
        });
        all().push(Arc::downgrade(&watched));
        static MONITOR: Once = Once::new();
        MONITOR.call_once(|| {
            install_handler();
            thread::Builder::new()
                .name("warren-watchdog".into())
                .spawn(monitor)
                .expect("the system refuses a thread for the watchdog");
        });
        Self(watched)
    }
}

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchdog").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

impl Blocked {
    /// Who blocks, in words.
    pub fn culprit(&self) -> String {
        let Some(fiber) = self.fiber else { return "a callback".to_owned() };
        let name = self.name.as_deref().map(|name| format!(" {name:?}")).unwrap_or_default();
        let place = self.spawned_at.map(|place| format!(", spawned at {place}"));
        format!("fiber {fiber}{name}{}", place.unwrap_or_default())
    }
}

fn all() -> MutexGuard<'static, Vec<Weak<Watched>>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The monitor's thread: lives as long as the process, idle while nothing is watched.
fn monitor() {
    /// What was seen of a hub.
    struct Seen {
        hub: Weak<Watched>,
        beat: u64,
        since: Instant,
        reported: bool,
    }
    let mut seen: Vec<Seen> = Vec::new();
    loop {
        let mut nap = Duration::from_millis(100);
        {
            let mut all = all();
            seen.extend(all.drain(..).map(|hub| Seen {
                hub,
                beat: 0,
                since: Instant::now(),
                reported: false,
            }));
        }
        seen.retain(|one| one.hub.strong_count() > 0);
        for one in &mut seen {
            let Some(hub) = one.hub.upgrade() else { continue };
            nap = nap.min((hub.limit / 4).max(Duration::from_millis(1)));
            let beat = hub.pulse.beat.load(Ordering::Relaxed);
            if beat == 0 || beat != one.beat {
                *one = Seen { hub: one.hub.clone(), beat, since: Instant::now(), reported: false };
            } else if hub.limit <= one.since.elapsed() && !one.reported {
                one.reported = true;
                let blocked = look_at(&hub, one.since.elapsed());
                // It may have gone on meanwhile: then what was seen is something else.
                if hub.pulse.beat.load(Ordering::Relaxed) == beat {
                    (hub.report)(blocked);
                }
            }
        }
        thread::sleep(nap);
    }
}

/// Has the thread of a hub note where it stands.
fn look_at(hub: &Watched, since: Duration) -> Blocked {
    let mut blocked = Blocked {
        thread: hub.thread.clone(),
        since,
        fiber: None,
        name: None,
        spawned_at: None,
        stack: Stack::default(),
    };
    // In this order: a signal sent earlier may arrive only now, and answer at once.
    NOTE.written.store(false, Ordering::SeqCst);
    NOTE.wanted_by.store(hub.tid.as_raw_nonzero().get().cast_unsigned(), Ordering::SeqCst);
    let process = rustix::process::getpid();
    if send(process, hub.tid).is_err() {
        return blocked;
    }
    let asked = Instant::now();
    while !NOTE.written.load(Ordering::SeqCst) {
        if PATIENCE < asked.elapsed() {
            // A handler that comes too late must not write any more, unless it does already.
            if NOTE.wanted_by.swap(0, Ordering::SeqCst) != 0 {
                return blocked;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: `written` was set by the handler after its last write, and the next one writes only when asked by
    // this thread, the only one that asks.
    let note = unsafe { &*NOTE.note.get() };
    blocked.fiber = Some(note.fiber).filter(|&id| id > 0).map(FiberId);
    let name = String::from_utf8_lossy(&note.name[..note.name_bytes]).into_owned();
    blocked.name = Some(name).filter(|name| !name.is_empty());
    blocked.spawned_at = note.spawned_at;
    blocked.stack = Stack::from_frames(&note.frames[..note.frame_count]);
    blocked
}

/// `tgkill`, which rustix does not offer.
fn send(process: Pid, thread: Pid) -> std::io::Result<()> {
    // SAFETY: a system call on numbers; the worst is that the thread has gone and another one has its number, in
    // which the handler finds that it is not meant.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            process.as_raw_nonzero().get(),
            thread.as_raw_nonzero().get(),
            Signal::URG.as_raw(),
        )
    };
    if sent == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// What the handler leaves for the monitor.
struct NoteBoard {
    /// The number of the thread that is asked; 0: none.
    wanted_by: AtomicU32,
    written: AtomicBool,
    note: UnsafeCell<Note>,
}

struct Note {
    fiber: u64,
    name: [u8; NAME_BYTES_MAX],
    name_bytes: usize,
    spawned_at: Option<&'static Location<'static>>,
    frames: [usize; FRAMES_MAX],
    frame_count: usize,
}

// SAFETY: the note is written by the one thread that takes its number out of `wanted_by`, and read by the monitor
// after `written`.
unsafe impl Sync for NoteBoard {}

static NOTE: NoteBoard = NoteBoard {
    wanted_by: AtomicU32::new(0),
    written: AtomicBool::new(false),
    note: UnsafeCell::new(Note {
        fiber: 0,
        name: [0; NAME_BYTES_MAX],
        name_bytes: 0,
        spawned_at: None,
        frames: [0; FRAMES_MAX],
        frame_count: 0,
    }),
};

fn install_handler() {
    // SAFETY: the action is safe to run in a signal handler: it takes no lock, allocates nothing, and looks only at
    // this thread's hub and at the note that is its own for the moment.
    let registered = unsafe { signal_hook::low_level::register(Signal::URG.as_raw(), write_note) };
    if let Err(error) = registered {
        tracing::warn!(%error, "the watchdog cannot look at threads");
    }
}

fn write_note() {
    let own = gettid().as_raw_nonzero().get().cast_unsigned();
    if NOTE.wanted_by.compare_exchange(own, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return;
    }
    // SAFETY: this thread has just taken its number out: the note is its own until `written` is set.
    let note = unsafe { &mut *NOTE.note.get() };
    (note.fiber, note.name_bytes, note.spawned_at, note.frame_count) = (0, 0, None, 0);
    hub::try_with(|hub| {
        let Some(fiber) = hub.current() else { return };
        note.fiber = fiber.id.get();
        note.spawned_at = Some(fiber.spawned_at.get());
        if let Ok(name) = fiber.name.try_borrow()
            && let Some(name) = name.as_deref()
        {
            note.name_bytes = name.len().min(NAME_BYTES_MAX);
            note.name[..note.name_bytes].copy_from_slice(&name.as_bytes()[..note.name_bytes]);
        }
    });
    let mut count = 0;
    // SAFETY: this thread waits in this handler, so its frames stay; the monitor resolves names elsewhere. What the
    // unsynchronised variant leaves out is a lock against other threads that trace at the same time, which only the
    // resolving of names needs.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            note.frames[count] = frame.ip().addr();
            count += 1;
            count < FRAMES_MAX
        });
    }
    note.frame_count = count;
    NOTE.written.store(true, Ordering::SeqCst);
}
