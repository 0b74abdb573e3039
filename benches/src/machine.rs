//! What is asked of the system: cores, limits, memory and processor time of processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Processors this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Binds this thread, and the processes it starts from now on, to one processor while the guard lives.
#[derive(Debug)]
#[must_use = "the binding ends when this is dropped"]
pub struct Bound(Option<CpuSet>);

impl Bound {
    /// To the processor of this number among those that may be used; the last when there are fewer.
    pub fn to(index: usize) -> Self {
        let Ok(before) = sched_getaffinity(None) else { return Self(None) };
        let usable = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu)).take(index + 1);
        let mut one = CpuSet::new();
        if let Some(cpu) = usable.last() {
            one.set(cpu);
        }
        // Where it is not allowed, the measurement is made unbound.
        let bound = sched_setaffinity(None, &one).is_ok();
        Self(bound.then_some(before))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = sched_setaffinity(None, before);
        }
    }
}

/// Raises the limit of open files of this process, and of those it starts, to what the system allows; gives that.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let reached =
        if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    reached.unwrap_or(u64::MAX)
}

/// Memory that a process has in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Pages of it that are in memory, bytes.
    pub resident_bytes: f64,
    /// The kernel's page tables for it, bytes.
    pub page_table_bytes: f64,
}

impl Memory {
    /// Of the process of this number, or `self`.
    pub fn of(process: &str) -> Self {
        let status = PathBuf::from(format!("/proc/{process}/status"));
        Self {
            resident_bytes: bytes_in(&status, "VmRSS:"),
            page_table_bytes: bytes_in(&status, "VmPTE:"),
        }
    }
}

/// The processes of one process group: a server and the children it has started.
#[derive(Clone, Copy, Debug)]
pub struct ProcessGroup(pub u32);

impl ProcessGroup {
    /// The folders in `/proc` of its processes, with what the kernel says in `stat` after the name.
    fn processes(self) -> impl Iterator<Item = (PathBuf, Vec<u64>)> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes.filter_map(move |process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything. The state after it is no number.
            let (_, fields) = stat.rsplit_once(") ")?;
            let fields: Vec<u64> =
                fields.split(' ').map(|field| field.parse().unwrap_or_default()).collect();
            (fields.get(2) == Some(&u64::from(self.0))).then(|| (process.path(), fields))
        })
    }

    /// Processor time of its processes and of those of their children that have ended: their own and the kernel's on
    /// their behalf.
    pub fn processor_time(self) -> Duration {
        self.processes().filter_map(|(path, _)| warren::perf::processor_time(&path)).sum()
    }

    /// Memory of its processes; what some of them share counts for each.
    pub fn resident_bytes(self) -> f64 {
        self.sum("status", "VmRSS:")
    }

    /// Memory of its processes; what some of them share is divided between them.
    pub fn proportional_bytes(self) -> f64 {
        self.sum("smaps_rollup", "Pss:")
    }

    /// Bytes that its processes have given to file systems, in pages, whether or not a disk has them by now.
    pub fn written_bytes(self) -> f64 {
        let written = |(path, _): (PathBuf, _)| {
            let text = fs::read_to_string(path.join("io")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
            line.parse::<f64>().ok()
        };
        self.processes().filter_map(written).sum()
    }

    /// Shows what is known of each file that its processes have open.
    pub fn open_files(self, mut each: impl FnMut(&fs::Metadata)) {
        for (process, _) in self.processes() {
            let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::metadata(file.path()).ok()).for_each(|file| each(&file));
        }
    }

    fn sum(self, file: &str, name: &str) -> f64 {
        self.processes().map(|(path, _)| bytes_in(&path.join(file), name)).sum()
    }
}

/// What the memory of a server came to at most while something was done, in bytes, beside what that gave.
pub fn with_peak<T>(group: ProcessGroup, work: impl FnOnce() -> T) -> (T, f64) {
    thread::scope(|scope| {
        // Hung up when the work ends, also when it panics.
        let (line, over) = channel::<()>();
        let watch = scope.spawn(move || {
            let mut peak = group.resident_bytes();
            while over.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
                peak = group.resident_bytes().max(peak);
            }
            peak
        });
        let done = work();
        drop(line);
        (done, watch.join().unwrap_or(f64::NAN))
    })
}

/// The number of KiB behind a name in a file of `/proc`, in bytes. 0 when it is not there.
fn bytes_in(path: &Path, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0
}

/// Processor and kernel, in words.
pub fn description() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1));
    let model = model.unwrap_or("unknown processor");
    format!("{} cores, {model}, Linux {}", cores(), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_bound_to_one_processor_and_freed_again() {
        let before = cores();
        let bound = Bound::to(0);
        assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        drop(bound);
        assert_eq!(cores(), before);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let memory = Memory::of("self");
        assert!(memory.resident_bytes > 100_000.0);
        assert!(memory.page_table_bytes > 0.0);
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        let group = ProcessGroup(group.try_into().unwrap());
        assert!(group.resident_bytes() > 100_000.0);
        assert!(group.proportional_bytes() <= group.resident_bytes());
        let start = group.processor_time();
        while group.processor_time() == start {}
    }
}
