//! Memory that is not in use, given back to the system: what the allocator holds free, and code that has run once.

/// Gives memory that was freed back to the system, as far as whole pages of it are free; the allocator keeps most of it
/// otherwise, for later. Blocks for about a millisecond for each few hundred megabytes. Does nothing where the C
/// library has no such call.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back the pages of this program's code and constants, all of them; what runs on is there again when it is
/// touched, from the page cache as a rule. Of a server that has started, most code is of the start, and the kernel has
/// mapped much around it that never runs. Takes less than a millisecond. Does nothing elsewhere than on Linux.
pub fn release_code() {
    #[cfg(target_os = "linux")]
    {
        let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        for range in unchanged(&maps, &program.to_string_lossy()) {
            let start = std::ptr::with_exposed_provenance_mut(range.start);
            // SAFETY: this is a part of the program itself, which nobody unmaps. Nobody can write to it, and no page of it
            // differs from the file's, so what is dropped is read from there again as it was.
            let _ = unsafe {
                rustix::mm::madvise(start, range.len(), rustix::mm::Advice::LinuxDontNeed)
            };
        }
    }
}

/// Where a program is mapped from its file, nobody can write to it, and nobody has: of what was relocated, or has a
/// debugger's marks, the kernel says that it is anonymous.
#[cfg(target_os = "linux")]
fn unchanged(smaps: &str, program: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(range) = mapping(line) {
            let fixed = line.split(' ').nth(1).is_some_and(|rights| !rights.contains(['w', 's']));
            let ours = line
                .split_once('/')
                .is_some_and(|(_, path)| program.strip_prefix('/') == Some(path));
            candidate = (fixed && ours).then_some(range);
        } else if let Some(kib) = line.strip_prefix("Anonymous:")
            && kib.trim() == "0 kB"
        {
            found.extend(candidate.take());
        }
    }
    found
}

/// What begins a mapping: its addresses, in hexadecimal digits.
#[cfg(target_os = "linux")]
fn mapping(line: &str) -> Option<std::ops::Range<usize>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_given_back() {
        let smaps = "\
1000-3000 r--p 00000000 fe:00 1                 /bin/it\nRss: 8 kB\nAnonymous:             0 kB\nVmFlags: rd
3000-5000 r-xp 00002000 fe:00 1                 /bin/it\nRss: 8 kB\nAnonymous:             0 kB
5000-6000 r--p 00004000 fe:00 1                 /bin/it\nRss: 4 kB\nAnonymous:             4 kB
6000-7000 rw-p 00005000 fe:00 1                 /bin/it\nRss: 4 kB\nAnonymous:             0 kB
7000-8000 r-xp 00000000 fe:00 2                 /bin/it.so\nRss: 4 kB\nAnonymous:             0 kB
8000-9000 rw-p 00000000 00:00 0                 [heap]\nRss: 4 kB\nAnonymous:             0 kB
";
        assert_eq!(unchanged(smaps, "/bin/it"), [0x1000..0x3000, 0x3000..0x5000]);
    }

    #[test]
    fn what_was_given_back_runs_on() {
        let before = unchanged("", "/bin/it");
        release_code();
        assert_eq!(unchanged("", "/bin/it"), before);
        assert_eq!(format!("{:?}", mapping("ff-1ff r-xp")), "Some(255..511)");
    }
}
