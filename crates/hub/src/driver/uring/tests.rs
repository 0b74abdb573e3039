//! What the suite for all drivers does not get at: full queues, late news, operations under way at the end.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::{FileRing, Uring};
use crate::driver::{Answer, Completion, Data, Driver, FileHandle, FileOp, Open, Reply};
use crate::io::Readiness;

const NOW: Option<Duration> = Some(Duration::ZERO);
const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn counters(count: usize) -> Vec<OwnedFd> {
    let new = |_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    (0..count).map(new).collect()
}

/// Waits until each of `count` keys was told as `ready`.
#[track_caller]
fn hear_all(driver: &Uring, count: u64, ready: Readiness) {
    let mut missing: HashSet<u64> = (0..count).collect();
    let mut events = Vec::new();
    while !missing.is_empty() {
        events.clear();
        driver.wait(LONG, &mut events).unwrap();
        assert!(!events.is_empty(), "not told: {missing:?}");
        for (key, told) in &events {
            if told.contains(ready) {
                missing.remove(key);
            }
        }
    }
}

#[test]
fn more_news_than_the_queues_hold_are_all_told() {
    // Four requests a call, 64 completions.
    let driver = Uring::with_entries(4, true).unwrap();
    let fds = counters(300);
    for (key, fd) in fds.iter().enumerate() {
        driver.watch_fd(fd.as_fd(), key as u64).unwrap();
    }
    hear_all(&driver, 300, Readiness::WRITABLE);
    for _ in 0..3 {
        // Polls that found no room have ended, and are armed again.
        for fd in &fds {
            rustix::io::write(fd, &1u64.to_ne_bytes()).unwrap();
        }
        hear_all(&driver, 300, Readiness::READABLE);
        for fd in &fds {
            rustix::io::read(fd, &mut [0; 8]).unwrap();
        }
    }
}

#[test]
fn an_ended_watch_tells_nothing_and_lets_the_file_go() {
    let driver = Uring::new(true).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"news under way").unwrap();
    driver.watch_fd(ours.as_fd(), 7).unwrap();
    driver.unwatch_fd(ours.as_fd(), 7).unwrap();
    drop(ours);
    // Closed for good: a poll would hold it open.
    theirs.set_read_timeout(LONG).unwrap();
    let end = theirs.read(&mut [0; 1]);
    assert!(
        !matches!(&end, Ok(1..))
            && !matches!(&end, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
        "{end:?}"
    );
    let mut events = Vec::new();
    driver.wait(NOW, &mut events).unwrap();
    assert_eq!(events, []);
}

#[test]
fn plain_files_are_refused_as_by_epoll() {
    let driver = Uring::new(true).unwrap();
    let file = tempfile::tempfile().unwrap();
    let error = driver.watch_fd(file.as_fd(), 1).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

/// A completion, and where it puts the answer.
fn place() -> (Arc<Mutex<Option<Answer>>>, Completion) {
    let place = Arc::new(Mutex::new(None));
    let answered = place.clone();
    (place, Box::new(move |answer| *answered.lock().unwrap() = Some(answer)))
}

#[test]
fn the_ring_itself_does_files() {
    let driver = Uring::with_entries(4, true).unwrap();
    let file = FileHandle::Kernel(Arc::new(OwnedFd::from(tempfile::tempfile().unwrap())));
    let writes: Vec<_> = (0..100u8)
        .map(|n| {
            let (place, done) = place();
            let data = Data::Owned(vec![n; 10]);
            let offset = Some(u64::from(n) * 10);
            let op = FileOp::Write { file: file.clone(), data, from: 0, offset };
            let inner = &mut *driver.inner.borrow_mut();
            assert!(inner.flights.start(&mut inner.ring, op, done).is_ok(), "left to a thread");
            place
        })
        .collect();
    while writes.iter().any(|place| place.lock().unwrap().is_none()) {
        driver.wait(LONG, &mut Vec::new()).unwrap();
    }
    for place in &writes {
        let answer = place.lock().unwrap().take().unwrap();
        assert!(matches!(answer.result, Ok(Reply::Count(10))), "{answer:?}");
        assert!(matches!(answer.buffer, Some(Data::Owned(buffer)) if buffer.len() == 10));
    }
    let (place, done) = place();
    driver.file(FileOp::Read { file, buffer: Vec::with_capacity(1000), offset: Some(0) }, done);
    while place.lock().unwrap().is_none() {
        driver.wait(LONG, &mut Vec::new()).unwrap();
    }
    let answer = place.lock().unwrap().take().unwrap();
    let Some(Data::Owned(bytes)) = answer.buffer else { panic!("no buffer came back") };
    assert!(bytes.iter().copied().eq((0..1000).map(|n| (n / 10) as u8)));
}

#[test]
fn the_end_of_a_ring_waits_for_writes_and_gives_up_what_waits_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let (fifo, path) = (folder.path().join("fifo"), folder.path().join("file"));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let driver = Uring::new(true).unwrap();
    let how = Open {
        read: true,
        write: false,
        append: false,
        truncate: false,
        create: false,
        create_new: false,
        mode: 0,
        custom_flags: 0,
    };
    let (never, done) = place();
    driver.file(FileOp::Open { path: fifo, how }, done);
    let file = FileHandle::Kernel(Arc::new(OwnedFd::from(file)));
    let data = Data::Owned(vec![1; 1 << 20]);
    let (_, done) = place();
    driver.file(FileOp::Write { file, data, from: 0, offset: Some(0) }, done);
    drop(driver);
    assert!(never.lock().unwrap().is_none());
    assert_eq!(std::fs::metadata(path).unwrap().len(), 1 << 20);
}

#[test]
fn watches_that_come_and_go_leave_nothing() {
    let driver = Uring::with_entries(8, true).unwrap();
    let mut events = Vec::new();
    for round in 0..600u64 {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        driver.watch_fd(ours.as_fd(), round).unwrap();
        // With news before, after and without the poll being armed.
        if round % 2 == 0 {
            theirs.write_all(b"news").unwrap();
        }
        if round % 3 == 0 {
            driver.wait(NOW, &mut events).unwrap();
        }
        if round % 5 == 0 {
            theirs.write_all(b"more").unwrap();
        }
        driver.unwatch_fd(ours.as_fd(), round).unwrap();
        drop(ours);
        theirs.set_nonblocking(true).unwrap();
        let end = theirs.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_ne!(end, Err(std::io::ErrorKind::WouldBlock), "round {round}: it is still open");
        // What was taken from the queue before the watch ended is told, and never again.
        events.clear();
        driver.wait(NOW, &mut events).unwrap();
        assert_eq!(events, [], "round {round}");
    }
    assert!(driver.inner.borrow().watched.is_empty());
}

#[test]
fn a_ring_beside_another_driver_does_files() {
    let files = FileRing::new(true);
    let file = FileHandle::Kernel(Arc::new(OwnedFd::from(tempfile::tempfile().unwrap())));
    let mut watched = 0;
    for _ in 0..3 {
        let (place, done) = place();
        let op = FileOp::SetLen { file: file.clone(), len: 10 };
        let op = match watched {
            0 => op,
            _ => FileOp::FileMetadata { file: file.clone() },
        };
        let started = files.start(op, done, |_| {
            watched += 1;
            Ok(())
        });
        assert!(started.is_ok(), "left to a thread");
        while place.lock().unwrap().is_none() {
            files.turn().unwrap();
            std::thread::yield_now();
        }
        assert!(place.lock().unwrap().take().unwrap().result.is_ok());
    }
    assert_eq!(watched, 1, "made once");

    let none = FileRing::new(false);
    let (_, done) = place();
    let refused = none.start(FileOp::SyncAll { file }, done, |_| Ok(()));
    assert!(refused.is_err() && !none.turn().unwrap());
}
