//! Telling of calls that block. Nothing is patched in this process.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use warren_hub::{call_soon, run, sleep, spawn};
use warren_patch::{detect, is_patched};

/// What is told while `body` runs on a hub: the function, whether a descriptor and a fiber are named, how long.
fn told(body: impl FnOnce() + 'static) -> Vec<(&'static str, bool, bool, Duration)> {
    let told = Rc::new(RefCell::new(Vec::new()));
    let note = told.clone();
    let detection = detect(move |call| {
        let words = (call.function, call.fd.is_some(), call.fiber.is_some(), call.blocked);
        note.borrow_mut().push(words);
    });
    run(body);
    drop(detection);
    assert!(!is_patched());
    told.take()
}

#[test]
fn what_blocks_is_told_with_its_length() {
    let told = told(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            thread::sleep(Duration::from_millis(20));
            stream.write_all(b"x").unwrap();
        });
        TcpStream::connect(addr).unwrap().read_exact(&mut [0]).unwrap();
        server.join().unwrap();
        thread::sleep(Duration::from_millis(5));
    });
    let [(recv, true, true, read), (nanosleep, false, true, slept)] = *told else {
        panic!("told: {told:?}")
    };
    assert_eq!((recv, nanosleep), ("recv", "clock_nanosleep"));
    assert!(read >= Duration::from_millis(10) && slept >= Duration::from_millis(5));
}

#[test]
fn what_does_not_block_is_not_told() {
    let told = told(|| {
        let listener = warren_hub::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            sleep(Duration::from_millis(2));
            stream.write_all(b"x").unwrap();
        });
        let mut stream = warren_hub::net::TcpStream::connect(addr).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        std::fs::read("/proc/self/stat").unwrap();
        thread::yield_now();
    });
    assert_eq!(told, []);
}

#[test]
fn callbacks_of_the_loop_are_told_as_such() {
    let told = told(|| {
        call_soon(|| thread::sleep(Duration::from_millis(1)));
        sleep(Duration::from_millis(5));
    });
    assert!(matches!(*told, [("clock_nanosleep", false, false, _)]), "told: {told:?}");
}

#[test]
fn threads_without_a_hub_may_block() {
    let told = told(|| {
        let other = thread::spawn(|| thread::sleep(Duration::from_millis(1)));
        warren_hub::offload(|| thread::sleep(Duration::from_millis(1)));
        other.join().unwrap();
    });
    assert_eq!(told, []);
}

#[test]
fn a_call_is_printed_with_where_it_comes_from() {
    #[inline(never)]
    fn culprit() {
        thread::sleep(Duration::from_millis(1));
    }
    let text = Rc::new(RefCell::new(String::new()));
    let printed = text.clone();
    let _detection = detect(move |call| *printed.borrow_mut() = call.to_string());
    run(culprit);
    let text = text.take();
    assert!(text.starts_with("clock_nanosleep blocked its hub for "), "{text}");
    assert!(text.contains("called by fiber") && text.contains("culprit"), "{text}");
}

#[test]
fn detections_are_nested() {
    let counts = Rc::new(RefCell::new((0, 0)));
    let (outer, inner) = (counts.clone(), counts.clone());
    let _outer = detect(move |_| {
        outer.borrow_mut().0 += 1;
        // This one is not told.
        thread::sleep(Duration::from_millis(1));
    });
    run(move || {
        let detection = detect(move |_| inner.borrow_mut().1 += 1);
        thread::sleep(Duration::from_millis(1));
        drop(detection);
        thread::sleep(Duration::from_millis(1));
    });
    assert_eq!(*counts.borrow(), (2, 1));
}
