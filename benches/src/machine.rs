//! What is asked of the system: cores, limits, memory and processor time of processes.

use std::fs;
use std::io;
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
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0)
        };
        Self {
            resident_bytes: bytes("VmRSS:").unwrap_or_default(),
            page_table_bytes: bytes("VmPTE:").unwrap_or_default(),
        }
    }
}

/// Processor time of a process, its own and the kernel's on its behalf. In steps of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn processor_time(process: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; the times are the 12th and 13th field after it.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    let ticks: u64 =
        fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(1000 * ticks / rustix::param::clock_ticks_per_second()))
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
        let start = processor_time(std::process::id()).unwrap();
        while processor_time(std::process::id()).unwrap() == start {}
    }
}
