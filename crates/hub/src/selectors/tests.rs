//! The same tests for all, as Python has them.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{
    Backend, Epoll, Events, FD_SETSIZE, Poll, Select, SelectSelector, Selector, SelectorError,
    Uring,
};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn pair() -> (Rc<UnixStream>, Rc<UnixStream>) {
    let (one, other) = UnixStream::pair().unwrap();
    (Rc::new(one), Rc::new(other))
}

/// What is ready, by its data.
fn ready<B: Backend>(selector: &mut Selector<B, Rc<UnixStream>, u32>) -> Vec<(u32, Events)> {
    selector.select(NOW).unwrap().into_iter().map(|(key, events)| (key.data, events)).collect()
}

fn registering_and_asking<B: Backend>() {
    let mut selector = Selector::<B, _, _>::new().unwrap();
    let (one, other) = pair();
    let key = selector.register(one.clone(), Events::READ, 1).unwrap();
    assert_eq!((key.fd, key.events, key.data), (one.as_raw_fd(), Events::READ, 1));
    let again = selector.register(one.clone(), Events::READ, 2);
    assert!(matches!(again, Err(SelectorError::AlreadyRegistered(fd)) if fd == one.as_raw_fd()));
    let nothing = selector.register(other.clone(), Events::empty(), 2);
    assert!(matches!(nothing, Err(SelectorError::NoEvents)));
    assert_eq!(selector.get_map().len(), 1);
    assert!(selector.get_key(&*other).is_none());
    let key = selector.modify(&*one, Events::WRITE, 3).unwrap();
    assert_eq!((key.events, key.data), (Events::WRITE, 3));
    assert!(matches!(
        selector.modify(&*other, Events::READ, 0),
        Err(SelectorError::NotRegistered(_))
    ));
    assert_eq!(selector.unregister(&*one).unwrap().data, 3);
    assert!(matches!(selector.unregister(&*one), Err(SelectorError::NotRegistered(_))));
    assert!(selector.get_map().is_empty());
}

fn readiness_is_reported_until_it_is_dealt_with<B: Backend>() {
    let mut selector = Selector::<B, _, _>::new().unwrap();
    let (one, other) = pair();
    selector.register(one.clone(), Events::READ, 1).unwrap();
    selector.register(other.clone(), Events::READ | Events::WRITE, 2).unwrap();
    assert_eq!(ready(&mut selector), [(2, Events::WRITE)]);
    (&*other).write_all(b"xy").unwrap();
    for _ in 0..2 {
        let mut all = ready(&mut selector);
        all.sort_by_key(|(data, _)| *data);
        assert_eq!(all, [(1, Events::READ), (2, Events::WRITE)]);
    }
    (&*one).read_exact(&mut [0; 2]).unwrap();
    (&*one).write_all(b"z").unwrap();
    assert_eq!(ready(&mut selector), [(2, Events::READ | Events::WRITE)]);
}

fn a_hang_up_is_ready_for_what_was_asked<B: Backend>() {
    let mut selector = Selector::<B, _, _>::new().unwrap();
    let (one, other) = pair();
    selector.register(one, Events::READ, 1).unwrap();
    drop(other);
    assert_eq!(ready(&mut selector), [(1, Events::READ)]);
}

fn waiting_ends_with_the_time_or_with_news<B: Backend>() {
    let mut selector = Selector::<B, _, _>::new().unwrap();
    let (one, other) = pair();
    selector.register(one, Events::READ, 1).unwrap();
    let start = Instant::now();
    let short = Duration::from_millis(10);
    assert!(selector.select(Some(short)).unwrap().is_empty());
    assert!(short <= start.elapsed());
    (&*other).write_all(b"x").unwrap();
    assert_eq!(selector.select(None).unwrap().len(), 1);
}

fn without_files_it_only_waits<B: Backend>() {
    let mut selector = Selector::<B, Rc<UnixStream>, u32>::new().unwrap();
    assert!(selector.select(Some(Duration::from_millis(1))).unwrap().is_empty());
}

fn a_watch_follows_its_changes<B: Backend>() {
    let mut selector = Selector::<B, _, _>::new().unwrap();
    let (one, other) = pair();
    selector.register(one.clone(), Events::READ, 1).unwrap();
    assert_eq!(ready(&mut selector), []);
    selector.modify(&*one, Events::WRITE, 2).unwrap();
    assert_eq!(ready(&mut selector), [(2, Events::WRITE)]);
    selector.modify(&*one, Events::READ, 3).unwrap();
    assert_eq!(ready(&mut selector), []);
    (&*other).write_all(b"x").unwrap();
    assert_eq!(ready(&mut selector), [(3, Events::READ)]);
    selector.unregister(&*one).unwrap();
    assert_eq!(ready(&mut selector), []);
    selector.register(one, Events::READ, 4).unwrap();
    assert_eq!(ready(&mut selector), [(4, Events::READ)]);
}

fn a_file_is_free_again_after_unregistering_and_closing<B: Backend>() {
    let (one, other) = pair();
    let mut selector = Selector::<B, _, _>::new().unwrap();
    selector.register(one.clone(), Events::READ, 1).unwrap();
    assert_eq!(ready(&mut selector), []);
    drop(selector.unregister(&*one).unwrap());
    drop(one);
    // The peer sees the end: nobody holds the file.
    assert_eq!((&*other).read(&mut [0]).unwrap(), 0);
    let (one, other) = pair();
    selector.register(one, Events::READ, 1).unwrap();
    assert_eq!(ready(&mut selector), []);
    selector.close().unwrap();
    assert_eq!((&*other).read(&mut [0]).unwrap(), 0);
}

macro_rules! for_all {
    ($($test:ident)*) => {
        mod epoll { $( #[test] fn $test() { super::$test::<super::Epoll>(); } )* }
        mod poll { $( #[test] fn $test() { super::$test::<super::Poll>(); } )* }
        mod select { $( #[test] fn $test() { super::$test::<super::Select>(); } )* }
        mod uring { $( #[test] fn $test() { super::$test::<super::Uring>(); } )* }
    };
}

for_all! {
    registering_and_asking
    readiness_is_reported_until_it_is_dealt_with
    a_hang_up_is_ready_for_what_was_asked
    waiting_ends_with_the_time_or_with_news
    without_files_it_only_waits
    a_watch_follows_its_changes
    a_file_is_free_again_after_unregistering_and_closing
}

#[test]
fn select_refuses_descriptors_beyond_its_table() {
    let (one, _other) = pair();
    let Ok(high) = rustix::io::fcntl_dupfd_cloexec(one.as_fd(), FD_SETSIZE) else {
        // The process may not have so many: then there is nothing to refuse.
        return;
    };
    let mut selector = SelectSelector::new().unwrap();
    let error = selector.register(high, Events::READ, ()).unwrap_err();
    assert!(error.to_string().contains("below 1024 only"), "{error}");
}
