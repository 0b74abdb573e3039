//! The tests of files once more, with threads; and what becomes of a process that may not use io_uring.

#[path = "fs.rs"]
mod fs;

use warren_hub::{DriverKind, Options};

/// Lets `io_uring_setup` fail on this thread with `EPERM` from now on, as the default profile of most containers does.
fn forbid_io_uring() {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        // The number of the system call comes first in what the filter sees.
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program lives until the calls are over; it concerns this thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn where_io_uring_is_forbidden_files_go_to_threads() {
    let tested = std::thread::spawn(|| {
        forbid_io_uring();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let text = warren_hub::run(move || {
            warren_hub::fs::write(&path, "by a thread").unwrap();
            warren_hub::fs::read_to_string(&path).unwrap()
        });
        assert_eq!(text, "by a thread");
        let refused = Options::new().driver(DriverKind::IoUring).run(|| ()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(refused.to_string().starts_with("io_uring cannot be used here: "), "{refused}");
    });
    tested.join().unwrap();
}
