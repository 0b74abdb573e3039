//! Alarms: too little memory or disk, so that publishers have to wait while consumers make room.
//!
//! ```text
//!   once a second: sizes --measure--> over a limit? --> Engine::set_alarm
//!   the store: cannot write, writes again ------------> Engine::set_refusing
//!   connection: running --alarm--> blocking --it publishes--> blocked --no alarm any more--> running
//! ```
//! A connection that only consumes is never blocked. What has been read of a blocked one stays unread in its
//! transport; the system's buffers hold its client back.

use std::path::PathBuf;
use std::str::FromStr;

use rustix::fs::statvfs;
use warren_amqp::method::connection;

use crate::engine::Engine;
use crate::memory::Bodies;

/// How much memory the server may take before publishers have to wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// A share of what the machine or the control group has, over 0.
    Share(f64),
    /// Bytes.
    Bytes(u64),
}

impl Default for MemoryLimit {
    /// 0.6, as in RabbitMQ.
    fn default() -> Self {
        Self::Share(0.6)
    }
}

impl FromStr for MemoryLimit {
    type Err = String;

    /// `0.6` is a share, `2GiB` a size.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(share) if text.contains('.') && 0.0 < share && share <= 1.0 => {
                Ok(Self::Share(share))
            }
            Ok(_) if text.contains('.') => {
                Err(format!("'{text}' is no share of the memory: write 0.6, or a size like 2GiB"))
            }
            _ => Ok(Self::Bytes(parse_size(text)?)),
        }
    }
}

impl MemoryLimit {
    fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Share(share) => Some((total_memory()? as f64 * share) as u64),
        }
    }
}

/// A number of bytes, with one of RabbitMQ's units: `50MB`, `64MiB`, `1G` (which is GiB, as is `Gi`).
///
/// # Errors
/// What it should have been.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit {
        "" => Some(1),
        "kB" | "KB" | "kb" => Some(1000),
        "MB" | "mb" => Some(1000 * 1000),
        "GB" | "gb" => Some(1000 * 1000 * 1000),
        "TB" | "tb" => Some(1000 * 1000 * 1000 * 1000),
        "k" | "K" | "ki" | "kiB" | "Ki" | "KiB" => Some(1 << 10),
        "m" | "M" | "Mi" | "MiB" => Some(1 << 20),
        "g" | "G" | "Gi" | "GiB" => Some(1 << 30),
        "t" | "T" | "Ti" | "TiB" => Some(1 << 40),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor);
    bytes
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("'{text}' is no size: write bytes, or 50MB, 64MiB, 2GiB"))
}

/// What can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    Disk,
}

impl Resource {
    /// RabbitMQ's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// The limits, and which of them are passed now.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    memory: bool,
    /// The disk is short.
    disk: bool,
    /// The store cannot write: the disk is full all the same, broken, or read-only.
    refusing: bool,
    /// The memory of the process above which it is short; `None`: it never is.
    pub(crate) memory_bytes_max: Option<u64>,
    /// The free space below which the disk is short.
    pub(crate) disk_free_bytes_min: u64,
    /// Where that space is; `None`: nothing is written.
    folder: Option<PathBuf>,
}

impl Alarms {
    pub(crate) fn new(memory: MemoryLimit, disk_free: u64, folder: Option<PathBuf>) -> Self {
        let mut alarms = Self { disk_free_bytes_min: disk_free, folder, ..Self::default() };
        alarms.limit_memory(memory);
        alarms
    }

    pub(crate) fn limit_memory(&mut self, limit: MemoryLimit) {
        self.memory_bytes_max = limit.bytes();
        if self.memory_bytes_max.is_none() {
            tracing::warn!(
                "cannot tell how much memory there is: no memory alarm unless --memory-limit is a size"
            );
        }
    }

    /// Whether publishers have to wait.
    pub(crate) fn any(&self) -> bool {
        self.memory || self.is_on(Resource::Disk)
    }

    /// The alarms that are on, by RabbitMQ's names.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let all = [Resource::Memory, Resource::Disk].into_iter();
        all.filter(|resource| self.is_on(*resource)).map(Resource::name).collect()
    }

    /// Whether this is short.
    pub(crate) fn is_on(&self, resource: Resource) -> bool {
        match resource {
            Resource::Memory => self.memory,
            Resource::Disk => self.disk || self.refusing,
        }
    }

    /// `low on memory`, as RabbitMQ says it; what RabbitMQ does not know is added.
    pub(crate) fn reason(&self) -> String {
        let why = if self.refusing { " (the store cannot write)" } else { "" };
        format!("low on {}{why}", self.names().join(" & "))
    }
}

impl Engine {
    /// Compares what there is with the limits.
    pub(crate) fn check_alarms(&mut self) {
        self.watch_memory();
        let free = self.alarms.folder.as_deref().and_then(|folder| statvfs(folder).ok());
        if let Some(free) = free.map(|of| of.f_bavail.saturating_mul(of.f_frsize)) {
            let limit = self.alarms.disk_free_bytes_min;
            let short = free < limit;
            if self.set_alarm(Resource::Disk, short) && short {
                tracing::warn!(
                    free,
                    limit,
                    "disk alarm: publishers are blocked until there is room; free some space of the data directory, or lower --disk-free-limit"
                );
            }
        }
    }

    /// Turns an alarm on or off. False when it was so already.
    pub(crate) fn set_alarm(&mut self, resource: Resource, on: bool) -> bool {
        let was_on = self.alarms.is_on(resource);
        let alarm = match resource {
            Resource::Memory => &mut self.alarms.memory,
            Resource::Disk => &mut self.alarms.disk,
        };
        let changes = std::mem::replace(alarm, on) != on;
        self.see_alarm(resource, was_on);
        changes
    }

    /// The store cannot write, or it can again: what is published meanwhile could not be kept.
    pub(crate) fn set_refusing(&mut self, on: bool) {
        if self.alarms.refusing == on {
            return;
        }
        if on {
            tracing::warn!(
                "disk alarm: publishers are blocked until the store writes again; consuming goes on"
            );
        }
        let was_on = self.alarms.is_on(Resource::Disk);
        self.alarms.refusing = on;
        self.see_alarm(Resource::Disk, was_on);
    }

    fn see_alarm(&mut self, resource: Resource, was_on: bool) {
        let on = self.alarms.is_on(resource);
        if on == was_on {
            return;
        }
        self.tell_alarm(resource, on);
        if !on {
            tracing::info!(?resource, "an alarm is over");
        }
        if !self.alarms.any() {
            self.bodies = Bodies::default();
            let clock = self.clock;
            for key in self.connections.keys() {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.unblock(clock);
                }
            }
        }
    }
}

impl crate::connection::Connection {
    /// It has published during an alarm: nothing more is read of it.
    pub(crate) fn block(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.blocked, true) {
            self.transport.pause_reading();
            if self.blocked_notify {
                self.send(0, &connection::Blocked { reason });
            }
        }
    }

    pub(crate) fn unblock(&mut self, clock: u64) {
        if std::mem::take(&mut self.blocked) {
            if self.blocked_notify && self.is_open() {
                self.send(0, &connection::Unblocked {});
            }
            // What it sent meanwhile has not been read: it was not silent.
            self.read_at = clock;
            self.transport.resume_reading();
        }
    }
}

/// What the machine has, or the control group if that is less.
fn total_memory() -> Option<u64> {
    let machine = kib_line(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    Some(group_limits().fold(machine, u64::min))
}

/// The limits of the control groups that this process is in, those above them included.
fn group_limits() -> impl Iterator<Item = u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let folder = PathBuf::from(format!("{root}{path}"));
        files.extend(folder.ancestors().filter(|at| at.starts_with(root)).map(|at| at.join(name)));
    }
    files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// The bytes of a line like `VmRSS:   1234 kB`.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::{MemoryLimit, parse_size, total_memory};

    #[test]
    fn sizes_have_rabbitmqs_units() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("50MB", 50_000_000), ("1M", 1 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1.5GB", "5 MB", "5XB", "99999999TB"] {
            assert!(parse_size(text).unwrap_err().contains("is no size"), "{text}");
        }
    }

    #[test]
    fn a_point_makes_a_share() {
        assert_eq!("0.5".parse(), Ok(MemoryLimit::Share(0.5)));
        assert_eq!("1GB".parse(), Ok(MemoryLimit::Bytes(1_000_000_000)));
        for text in ["0.0", "1.5", "-0.1", "half"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_one_of_what_there_is() {
        let all = total_memory().unwrap();
        assert_eq!(MemoryLimit::Share(1.0).bytes(), Some(all));
        assert!(MemoryLimit::Share(0.5).bytes().unwrap() <= all / 2);
    }
}
