//! Side-by-side measurements against the peers: what the programs of this package share.
//!
//! `cargo xtask bench broker` and `cargo xtask bench runtime` start the servers and run the programs.

pub mod load;
pub mod machine;
pub mod runtime;
pub mod table;

/// Resident memory, in KiB, of all processes of a process group.
pub fn group_resident_kib(group: u32) -> u64 {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    processes
        .flatten()
        .filter_map(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything; the group is the third field after it.
            let of_group = stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse::<u32>().ok()?;
            if of_group != group {
                return None;
            }
            let status = std::fs::read_to_string(process.path().join("status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}
