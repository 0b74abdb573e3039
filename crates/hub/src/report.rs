//! What every fiber is doing: gevent's `print_run_info`.
//!
//! A parked fiber is resumed for a moment to look at its own stack; so no foreign stack has to be unwound, and what
//! is told is what a panic at that place would tell.

use std::fmt;
use std::panic::Location;

use crate::fiber::{Fiber, State};
use crate::hub::{self, Hub};
use crate::join::FiberId;

/// Calls that are kept of a stack.
const FRAMES_MAX: usize = 64;

/// The calls a fiber stands in, innermost first.
#[derive(Clone, Default)]
pub struct Stack(Vec<usize>);

impl Stack {
    /// Where the caller stands.
    pub(crate) fn here() -> Self {
        let mut frames = Vec::with_capacity(FRAMES_MAX);
        backtrace::trace(|frame| {
            frames.push(frame.ip().addr());
            frames.len() < FRAMES_MAX
        });
        Self(frames)
    }

    /// From addresses that somebody else has collected.
    pub(crate) fn from_frames(frames: &[usize]) -> Self {
        Self(frames.to_vec())
    }

    /// The calls, innermost first: the name, and the place when it is known. What the hub itself adds below the
    /// fiber's own code and above it is left out.
    pub fn frames(&self) -> Vec<StackFrame> {
        let mut frames = Vec::new();
        for &address in &self.0 {
            let pointer = std::ptr::without_provenance_mut(address);
            backtrace::resolve(pointer, |symbol| {
                let name = symbol.name().map(|name| format!("{name:#}"));
                frames.push(StackFrame {
                    function: name.unwrap_or_else(|| format!("{address:#x}")),
                    file: symbol.filename().map(|file| file.display().to_string()),
                    line: symbol.lineno(),
                });
            });
        }
        // The innermost entry is the fiber's; what lies further out is the loop, or whoever asks.
        let above = frames.iter().position(StackFrame::is_entry).unwrap_or(frames.len());
        frames.truncate(above);
        let below = frames.iter().rposition(StackFrame::is_parking).map_or(0, |index| index + 1);
        frames.split_off(below)
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frames().iter().try_for_each(|frame| writeln!(f, "    {frame}"))
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.frames()).finish()
    }
}

/// One call of a [`Stack`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFrame {
    /// The function's path.
    pub function: String,
    /// The source file, when the program was built with line tables.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
}

impl StackFrame {
    /// The hub's own part of every wait.
    fn is_parking(&self) -> bool {
        const OWN: [&str; 6] = [
            "backtrace::",
            "corosensei::",
            "warren_hub::fiber::",
            "warren_hub::hub::",
            "warren_hub::report::",
            "warren_hub::sync::wait_list::",
        ];
        let function = self.function.trim_start_matches('<');
        OWN.iter().any(|own| function.starts_with(own))
    }

    /// Where every fiber begins.
    fn is_entry(&self) -> bool {
        self.function.contains("warren_hub::spawn::Builder")
            || self.function.contains("corosensei::coroutine::Coroutine")
    }
}

impl fmt::Display for StackFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        if let Some(file) = &self.file {
            write!(f, " at {file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
        }
        Ok(())
    }
}

/// One fiber, as [`run_info`] saw it.
#[derive(Clone, Debug)]
pub struct FiberInfo {
    /// Its number.
    pub id: FiberId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The fiber that spawned it, which may have ended since; `None`: the loop, or nobody.
    pub parent: Option<FiberId>,
    /// Where it was spawned.
    pub spawned_at: &'static Location<'static>,
    /// What it does or waits for, in words.
    pub state: String,
    /// The calls it stands in; empty when it has not begun.
    pub stack: Stack,
}

/// All fibers of a hub.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// In the order in which they were spawned.
    pub fibers: Vec<FiberInfo>,
    /// Timers that wait.
    pub timers: usize,
    /// Descriptors that are watched.
    pub descriptors: usize,
    /// How the hub waits: the name of its driver.
    pub driver: &'static str,
}

/// Looks at every fiber of this thread's hub.
///
/// ```
/// use warren_hub::{Builder, run, run_info, sync::Event, yield_now};
///
/// run(|| {
///     let waiting = Builder::new().name("waiting").spawn(|| Event::new().wait()).unwrap();
///     yield_now();
///     let info = run_info().to_string();
///     assert!(info.contains("waiting (fiber 2)"), "{info}");
///     waiting.kill();
/// });
/// ```
///
/// # Panics
/// When no hub runs on this thread.
pub fn run_info() -> RunInfo {
    hub::with(Hub::run_info)
}

/// Prints [`run_info`] to the standard error. gevent's `print_run_info`.
///
/// # Panics
/// When no hub runs on this thread.
pub fn print_run_info() {
    eprintln!("{}", run_info());
}

/// Prints [`run_info`] to the standard error each time the process receives `signal`, for as long as the watch lives.
///
/// # Errors
/// As [`on_signals`](crate::signal::on_signals).
///
/// # Panics
/// When no hub runs on this thread.
pub fn print_run_info_on(
    signal: crate::signal::Signal,
) -> std::io::Result<crate::signal::SignalWatch> {
    crate::signal::on_signals(&[signal], |_| print_run_info())
}

impl FiberInfo {
    pub(crate) fn of(hub: &Hub, fiber: &Fiber) -> Self {
        let runs = hub.current().is_some_and(|current| std::ptr::eq(current, fiber));
        let state = match fiber.state.get() {
            State::Vacant | State::Later => "starts later".to_owned(),
            State::New => "has not begun".to_owned(),
            State::Running => "runs".to_owned(),
            State::Ready => "is ready".to_owned(),
            State::Parked => format!("waits for {}", fiber.waits_for.get()),
        };
        let stack = if runs { Some(Stack::here()) } else { fiber.stack() };
        Self {
            id: FiberId(fiber.id.get()),
            name: fiber.name.borrow().as_deref().map(str::to_owned),
            parent: Some(fiber.parent.get()).filter(|&id| id > 0).map(FiberId),
            spawned_at: fiber.spawned_at.get(),
            state,
            stack: stack.unwrap_or_default(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        write!(f, "{indent}")?;
        match &self.name {
            Some(name) => write!(f, "{name} (fiber {})", self.id)?,
            None => write!(f, "fiber {}", self.id)?,
        }
        writeln!(f, ", spawned at {}: {}", self.spawned_at, self.state)?;
        self.stack.frames().iter().try_for_each(|frame| writeln!(f, "{indent}    {frame}"))
    }
}

impl RunInfo {
    fn write_tree(
        &self,
        f: &mut fmt::Formatter<'_>,
        parent: Option<FiberId>,
        depth: usize,
    ) -> fmt::Result {
        for fiber in &self.fibers {
            // A child of a fiber that has ended stands at the root.
            let known = fiber.parent.filter(|id| self.fibers.iter().any(|other| other.id == *id));
            if known == parent {
                fiber.write(f, depth)?;
                self.write_tree(f, Some(fiber.id), depth + 1)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for RunInfo {
    /// A tree: each fiber under the one that spawned it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} fibers, {} timers, {} descriptors, {}",
            self.fibers.len(),
            self.timers,
            self.descriptors,
            self.driver
        )?;
        self.write_tree(f, None, 0)
    }
}
