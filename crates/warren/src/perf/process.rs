//! The server's process, where it runs on this machine: whose it is that listens, and what it costs.

use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// The process that listens on a port of this machine, if that is allowed to be seen.
pub(super) fn listening_on(host: &str, port: u16) -> Option<u32> {
    let addrs = (host, port).to_socket_addrs().ok()?;
    if !addrs.map(|addr| addr.ip()).any(|ip: IpAddr| ip.is_loopback()) {
        return None;
    }
    let inodes: Vec<String> = ["tcp", "tcp6"]
        .into_iter()
        .filter_map(|name| fs::read_to_string(format!("/proc/net/{name}")).ok())
        .flat_map(|table| table.lines().filter_map(|line| listener(line, port)).collect::<Vec<_>>())
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
            let target = target.to_string_lossy();
            target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|inode| inodes.iter().any(|listener| listener == inode))
        })
    })
}

/// The inode of the socket in a line of `/proc/net/tcp`, if it listens on this port.
fn listener(line: &str, port: u16) -> Option<String> {
    const LISTENING: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == LISTENING;
    let same = u16::from_str_radix(local_port, 16).ok()? == port;
    (listens && same).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

/// Processor time of a process, and of those of its children that have ended: their own and the kernel's on their
/// behalf. The argument is its folder in `/proc`; `None` once it is gone.
pub fn processor_time(process: &Path) -> Option<Duration> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name, in parentheses, may hold anything. The state after it is no number.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<u64> =
        fields.split(' ').map(|field| field.parse().unwrap_or_default()).collect();
    // utime and stime, the 12th and 13th field after the name; then the same of children.
    let times = |at: usize| ticks(fields.iter().skip(at).take(2).sum());
    // Those steps of 10 ms are too coarse for a process that does little, and what the scheduler has noted of the
    // threads that live knows nothing of those that have ended.
    Some(times(11).max(scheduled(process)) + times(13))
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(1000 * count / rustix::param::clock_ticks_per_second())
}

/// How long the threads of a process have had a processor.
fn scheduled(process: &Path) -> Duration {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let time = |thread: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(time).sum())
}

/// Resident memory of a process, in bytes; 0 once it is gone.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn this_process_is_found_by_its_port_and_has_used_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_on("127.0.0.1", port), Some(std::process::id()));
        assert_eq!(listening_on("192.0.2.1", port), None);
        drop(listener);
        let own = Path::new("/proc/self");
        let start = processor_time(own).unwrap();
        while processor_time(own).unwrap() == start {}
        assert!(resident_bytes(std::process::id()) > 100_000);
    }
}
