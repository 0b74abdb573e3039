//! What blocks besides sockets: pipes, sleep, names, children, locks, waiting for many.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use support::AT_ONCE;
use warren_hub::{join_all, run, spawn, yield_now};
use warren_patch::{is_patched, patch_all};

mod support;

/// Runs `body` on a hub, patched.
fn patched<T: 'static>(body: impl FnOnce() -> T + 'static) -> T {
    support::watchdog();
    patch_all();
    assert!(is_patched());
    run(body)
}

#[test]
fn sleeps_overlap() {
    patched(|| {
        let asleep = Rc::new(Cell::new(0));
        let most = Rc::new(Cell::new(0));
        let sleepers = (0..AT_ONCE).map(|_| {
            let (asleep, most) = (asleep.clone(), most.clone());
            spawn(move || {
                asleep.set(asleep.get() + 1);
                most.set(asleep.get().max(most.get()));
                let started = Instant::now();
                thread::sleep(Duration::from_millis(20));
                assert!(started.elapsed() >= Duration::from_millis(20));
                asleep.set(asleep.get() - 1);
            })
        });
        assert!(join_all(sleepers).iter().all(Result::is_ok));
        assert_eq!(most.get(), AT_ONCE);
    });
}

#[test]
fn every_kind_of_sleep_parks() {
    patched(|| {
        let brief = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let wrong = libc::timespec { tv_sec: 0, tv_nsec: -1 };
        let none = std::ptr::null_mut();
        let check = |sleep: &dyn Fn() -> i32| {
            let other = spawn(|| ());
            let result = sleep();
            assert!(other.is_finished());
            result
        };
        // SAFETY: times, and no places for what is left.
        unsafe {
            assert_eq!(check(&|| libc::nanosleep(&brief, none)), 0);
            assert_eq!(check(&|| libc::usleep(1000)), 0);
            assert_eq!(check(&|| libc::sleep(0).cast_signed()), 0);
            let clock = libc::CLOCK_MONOTONIC;
            assert_eq!(check(&|| libc::clock_nanosleep(clock, 0, &brief, none)), 0);
            let mut soon = brief;
            libc::clock_gettime(libc::CLOCK_REALTIME, &mut soon);
            let (clock, flags) = (libc::CLOCK_REALTIME, libc::TIMER_ABSTIME);
            assert_eq!(check(&|| libc::clock_nanosleep(clock, flags, &soon, none)), 0);
            assert_eq!(libc::clock_nanosleep(clock, 0, &wrong, none), libc::EINVAL);
            assert_eq!(libc::nanosleep(&wrong, none), -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
        }
    });
}

#[test]
fn a_killed_fiber_does_not_sleep_on() {
    patched(|| {
        let fiber = spawn(|| {
            thread::sleep(Duration::from_secs(3600));
            loop {
                thread::sleep(Duration::from_secs(3600));
                warren_hub::sleep(Duration::ZERO);
            }
        });
        yield_now();
        fiber.kill();
        assert!(fiber.join().is_err());
    });
}

#[test]
fn pipes_are_read_and_filled_without_blocking_the_hub() {
    patched(|| {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let size = 1 << 20;
        let writing = spawn(move || writer.write(&vec![3; size]).unwrap());
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len(), writing.join().unwrap()), (size, size));
    });
}

#[test]
fn eventfds_are_waited_for() {
    patched(|| {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        let reading = spawn(move || {
            let mut count = [0_u8; 8];
            // SAFETY: a buffer of the size that is given.
            assert_eq!(unsafe { libc::read(fd, count.as_mut_ptr().cast(), 8) }, 8);
            u64::from_ne_bytes(count)
        });
        yield_now();
        let three = 3_u64.to_ne_bytes();
        // SAFETY: eight bytes.
        assert_eq!(unsafe { libc::write(fd, three.as_ptr().cast(), 8) }, 8);
        assert_eq!(reading.join().unwrap(), 3);
        // SAFETY: ours, and not used any more.
        unsafe { libc::close(fd) };
    });
}

#[test]
fn plain_files_are_read_and_written_as_ever() {
    patched(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 1 << 20);
    });
}

#[test]
fn files_are_copied_to_sockets() {
    // Which `io::copy` does by sendfile, where that does not say no.
    patched(|| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![5; 4 << 20]).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        let copying = spawn(move || io::copy(&mut file, &mut server).unwrap());
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len(), copying.join().unwrap()), (4 << 20, 4 << 20));
    });
}

#[test]
fn poll_waits_for_one_of_many() {
    patched(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let (idle, _idle_writer) = io::pipe().unwrap();
        let polling = spawn(move || {
            let wanted = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // One twice, one that does not count.
            let (idle, fd) = (idle.as_raw_fd(), reader.as_raw_fd());
            let mut fds = [wanted(idle), wanted(fd), wanted(-1), wanted(fd)];
            // SAFETY: four of them.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), 4, -1) };
            (ready, fds.map(|one| one.revents))
        });
        yield_now();
        writer.write_all(b"x").unwrap();
        assert_eq!(polling.join().unwrap(), (2, [0, libc::POLLIN, 0, libc::POLLIN]));
    });
}

#[test]
fn poll_gives_up_in_time() {
    patched(|| {
        let (reader, _writer) = io::pipe().unwrap();
        let other = spawn(|| ());
        let mut fds = [libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one of them, or none.
        unsafe {
            assert_eq!(libc::poll(fds.as_mut_ptr(), 1, 0), 0);
            assert!(!other.is_finished(), "this one must not wait");
            assert_eq!(libc::poll(fds.as_mut_ptr(), 1, 5), 0);
            assert!(other.is_finished());
            assert_eq!(libc::poll(std::ptr::null_mut(), 0, 5), 0);
            let brief = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            assert_eq!(libc::ppoll(fds.as_mut_ptr(), 1, &brief, std::ptr::null()), 0);
        }
    });
}

#[test]
fn select_waits() {
    patched(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let none = std::ptr::null_mut();
        let selecting = spawn(move || {
            let fd = reader.as_raw_fd();
            // SAFETY: sets on this stack, all zero first, which is empty.
            unsafe {
                let mut set: libc::fd_set = std::mem::zeroed();
                libc::FD_SET(fd, &mut set);
                let mut brief = libc::timeval { tv_sec: 0, tv_usec: 2000 };
                assert_eq!(libc::select(fd + 1, &mut set, none, none, &mut brief), 0);
                assert!(!libc::FD_ISSET(fd, &set));
                libc::FD_SET(fd, &mut set);
                let mut long = libc::timeval { tv_sec: 60, tv_usec: 0 };
                assert_eq!(libc::select(fd + 1, &mut set, none, none, &mut long), 1);
                assert!(libc::FD_ISSET(fd, &set));
                assert!(long.tv_sec < 60);
                libc::pselect(fd + 1, &mut set, none, none, std::ptr::null(), std::ptr::null())
            }
        });
        warren_hub::sleep(Duration::from_millis(5));
        writer.write_all(b"x").unwrap();
        assert_eq!(selecting.join().unwrap(), 1);
    });
}

#[test]
fn an_epoll_set_of_a_library_is_waited_for() {
    patched(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let waiting = spawn(move || {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 9 };
            // SAFETY: descriptors that are open, and room for one event.
            unsafe {
                let set = libc::epoll_create1(libc::EPOLL_CLOEXEC);
                libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, reader.as_raw_fd(), &mut event);
                assert_eq!(libc::epoll_wait(set, &mut event, 1, 2), 0);
                let ready = libc::epoll_wait(set, &mut event, 1, -1);
                libc::close(set);
                (ready, event.u64)
            }
        });
        warren_hub::sleep(Duration::from_millis(5));
        writer.write_all(b"x").unwrap();
        assert_eq!(waiting.join().unwrap(), (1, 9));
    });
}

#[test]
fn names_are_looked_up_on_another_thread() {
    patched(|| {
        let other = spawn(|| ());
        let addrs: Vec<_> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
        assert!(!addrs.is_empty() && other.is_finished());
        // Nobody needs to be asked.
        let other = spawn(|| ());
        assert_eq!(("127.0.0.1", 80).to_socket_addrs().unwrap().count(), 1);
        assert!(!other.is_finished());
        assert!(("no such name.invalid", 80).to_socket_addrs().is_err());
    });
}

#[test]
fn addresses_are_looked_up_on_another_thread() {
    patched(|| {
        let other = spawn(|| ());
        // SAFETY: an address, and rooms of the sizes that are given.
        let code = unsafe {
            let mut address: libc::sockaddr_in = std::mem::zeroed();
            address.sin_family = libc::AF_INET as u16;
            address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            let (address, size) = (&raw const address, size_of_val(&address) as u32);
            let mut host = [0; 100];
            let none = std::ptr::null_mut();
            let place = host.as_mut_ptr();
            let code = libc::getnameinfo(address.cast(), size, place, 100, none, 0, 0);
            assert_ne!(host[0], 0);
            code
        };
        assert_eq!(code, 0);
        assert!(other.is_finished());
    });
}

#[test]
fn children_are_waited_for_and_read() {
    patched(|| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let waiting = spawn(move || child.wait().unwrap());
        yield_now();
        assert!(!waiting.is_finished());
        drop(input);
        assert!(waiting.join().unwrap().success());
        let script = "echo out; echo err >&2; exit 3";
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
    });
}

#[test]
fn every_kind_of_wait_parks() {
    patched(|| {
        let slow = || Command::new("sleep").arg("0.01").spawn().unwrap().id().cast_signed();
        let other = spawn(|| ());
        let mut status = 0;
        let none = std::ptr::null_mut();
        let pid = slow();
        // SAFETY: children of ours, and places.
        unsafe {
            assert_eq!(libc::waitpid(pid, &mut status, libc::WNOHANG), 0);
            assert!(!other.is_finished());
            assert_eq!(libc::wait4(pid, &mut status, libc::WUNTRACED, none), pid);
            assert!(other.is_finished());
            assert!(std::process::ExitStatus::from_raw(status).success());
            let pid = slow();
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED;
            assert_eq!(libc::waitid(libc::P_PID, pid.cast_unsigned(), &mut info, flags), 0);
            assert_eq!(info.si_pid(), pid);
            assert_eq!(libc::waitpid(pid, &mut status, 0), -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ECHILD));
        }
    });
}

#[test]
fn two_fibers_take_turns_with_a_lock_of_a_file() {
    patched(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let open = || File::create(&path).unwrap();
        let (first, second) = (open(), open());
        first.lock().unwrap();
        assert!(second.try_lock().is_err());
        let locking = spawn(move || second.lock().unwrap());
        yield_now();
        assert!(!locking.is_finished());
        first.unlock().unwrap();
        locking.join().unwrap();
    });
}

#[test]
fn a_forked_child_is_not_patched() {
    patched(|| {
        // SAFETY: the child makes one system call, and ends.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::usleep(1000);
                libc::_exit(i32::from(is_patched()));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
            assert_eq!(status, 0);
        }
    });
}

#[test]
fn writes_to_a_pipe_keep_their_order() {
    patched(|| {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let writing = spawn(move || {
            let parts: Vec<Vec<u8>> = (0..10).map(|n| vec![n; 50_000]).collect();
            let slices: Vec<io::IoSlice<'_>> =
                parts.iter().map(|part| io::IoSlice::new(part)).collect();
            writer.write_vectored(&slices).unwrap()
        });
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len(), writing.join().unwrap()), (500_000, 500_000));
        assert!(bytes.is_sorted());
    });
}

#[test]
fn what_is_written_to_nobody_is_an_error() {
    patched(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}
