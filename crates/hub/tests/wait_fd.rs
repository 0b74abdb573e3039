//! Waiting for descriptors that are not the hub's own.

mod support;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use support::run;
use warren_hub::io::{Readiness, closing, wait_fd};
use warren_hub::{
    Interrupted, JoinError, TimedOut, hold_interrupts, sleep, spawn, with_timeout, yield_now,
};

#[test]
fn parks_until_bytes_come_and_leaves_the_descriptor_blocking() {
    run(|| {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let reading = spawn(move || {
            let ready = wait_fd(reader.as_fd(), Readiness::READABLE, None).unwrap();
            assert!(ready.contains(Readiness::READABLE));
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            byte[0]
        });
        yield_now();
        assert!(!reading.is_finished());
        writer.write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap(), b'x');
    });
}

#[test]
fn readers_and_writers_share_a_descriptor() {
    run(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = (ours.try_clone().unwrap(), ours);
        let reader_fd = reader.as_fd().as_raw_fd();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let reader = reader.try_clone().unwrap();
                spawn(move || wait_fd(reader.as_fd(), Readiness::READABLE, None).unwrap())
            })
            .collect();
        let same: Vec<_> = (0..3)
            .map(|_| {
                spawn(move || {
                    // SAFETY: `reader` outlives these fibers, which are joined below.
                    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(reader_fd) };
                    wait_fd(fd, Readiness::READABLE, None).unwrap()
                })
            })
            .collect();
        let both = Readiness::READABLE | Readiness::WRITABLE;
        // Writable at once; those who wait to read still do.
        assert!(wait_fd(reader.as_fd(), both, None).unwrap().contains(Readiness::WRITABLE));
        assert!(
            wait_fd(writer.as_fd(), Readiness::WRITABLE, None)
                .unwrap()
                .contains(Readiness::WRITABLE)
        );
        assert!(same.iter().chain(&readers).all(|waiting| !waiting.is_finished()));
        theirs.write_all(b"x").unwrap();
        for waiting in readers.into_iter().chain(same) {
            assert!(waiting.join().unwrap().contains(Readiness::READABLE));
        }
    });
}

#[test]
fn a_descriptor_the_hub_watches_already_can_be_waited_for() {
    run(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = warren_hub::net::UnixStream::from_std(ours).unwrap();
        let fd = ours.as_fd().as_raw_fd();
        let reading = spawn(move || {
            let mut byte = [0];
            ours.read_exact(&mut byte).unwrap();
            (byte[0], ours)
        });
        // SAFETY: the stream is kept by the fiber's result until the end.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let deadline = Instant::now() + Duration::from_millis(5);
        let error = wait_fd(fd, Readiness::READABLE, Some(deadline)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        theirs.write_all(b"yz").unwrap();
        assert!(wait_fd(fd, Readiness::READABLE, None).unwrap().contains(Readiness::READABLE));
        assert_eq!(reading.join().unwrap().0, b'y');
    });
}

#[test]
fn a_number_that_comes_again_is_another_descriptor() {
    run(|| {
        for _ in 0..3 {
            let (mut reader, mut writer) = io::pipe().unwrap();
            let deadline = Instant::now() + Duration::from_millis(2);
            assert!(wait_fd(reader.as_fd(), Readiness::READABLE, Some(deadline)).is_err());
            spawn(move || writer.write_all(b"x").unwrap());
            wait_fd(reader.as_fd(), Readiness::READABLE, None).unwrap();
            reader.read_exact(&mut [0]).unwrap();
            // Both ends are closed here; the next pipe has the same numbers.
        }
    });
}

#[test]
fn closing_wakes_those_who_wait() {
    run(|| {
        let (reader, _writer) = io::pipe().unwrap();
        let fd = reader.as_raw_fd();
        let waiting = spawn(move || wait_fd(reader.as_fd(), Readiness::READABLE, None));
        yield_now();
        closing(fd);
        assert!(waiting.join().unwrap().unwrap_err().raw_os_error().is_some());
    });
}

#[test]
fn a_killed_wait_leaves_nothing_behind() {
    run(|| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let fd = theirs.try_clone().unwrap();
        let waiting = spawn(move || wait_fd(fd.as_fd(), Readiness::READABLE, None));
        yield_now();
        waiting.kill();
        assert!(waiting.join().is_err());
        ours.write_all(b"x").unwrap();
        sleep(Duration::from_millis(1));
        assert!(wait_fd(theirs.as_fd(), Readiness::READABLE, None).is_ok());
    });
}

#[test]
fn a_plain_file_cannot_be_waited_for() {
    let file = tempfile::tempfile().unwrap();
    let error = run(move || wait_fd(file.as_fd(), Readiness::READABLE, None)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn the_next_hub_of_the_thread_starts_anew() {
    for _ in 0..2 {
        run(|| {
            let (reader, writer) = io::pipe().unwrap();
            drop(writer);
            let ready = wait_fd(reader.as_fd(), Readiness::READABLE, None).unwrap();
            assert!(ready.contains(Readiness::CLOSED));
        });
    }
}

#[test]
#[should_panic(expected = "for ever")]
fn a_set_that_nobody_waits_in_does_not_keep_a_stuck_hub_alive() {
    run(|| {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        wait_fd(reader.as_fd(), Readiness::READABLE, None).unwrap();
        warren_hub::sync::Event::new().wait();
    });
}

#[test]
fn held_interrupts_come_later() {
    run(|| {
        let reached = Rc::new(Cell::new(0));
        let seen = reached.clone();
        let fiber = spawn(move || {
            let never = || sleep(Duration::from_secs(3600));
            assert_eq!(hold_interrupts(never), Err(Interrupted::Killed));
            // It still holds: the next wait ends, too.
            assert_eq!(hold_interrupts(never), Err(Interrupted::Killed));
            seen.set(1);
            sleep(Duration::ZERO);
            seen.set(2);
        });
        yield_now();
        fiber.kill();
        assert!(matches!(fiber.join(), Err(JoinError::Killed)));
        assert_eq!(reached.get(), 1);
    });
}

#[test]
fn a_held_timeout_is_still_its_own() {
    run(|| {
        let result = with_timeout(Duration::from_millis(2), || {
            let held = hold_interrupts(|| sleep(Duration::from_secs(3600)));
            assert_eq!(held, Err(Interrupted::TimedOut));
            sleep(Duration::from_secs(3600));
        });
        assert_eq!(result, Err(TimedOut));
        // Nothing is left of one that has been answered without a wait.
        let result = with_timeout(Duration::from_millis(2), || {
            hold_interrupts(|| sleep(Duration::from_secs(3600)))
        });
        assert_eq!(result, Ok(Err(Interrupted::TimedOut)));
        sleep(Duration::from_millis(1));
    });
}
