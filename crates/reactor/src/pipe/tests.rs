//! What is done where a descriptor cannot be opened once more: pipes that block, as if there were no `/proc`.

use std::cell::RefCell;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::{offload, run, sleep};

use super::open::{Input, Outlet, Reads, Writes};
use super::{Transport, adopt};
use crate::{Protocol, Reason};

type Log = Rc<RefCell<Vec<String>>>;

/// Sends back what it reads.
struct Echo(Log);

impl Protocol for Echo {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        self.0.borrow_mut().push("write lost".into());
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.borrow_mut().push(format!("lost: {reason}"));
    }
}

/// A connection by the ways of last resort, and the other ends of its pipes.
fn connection() -> (Transport, Log, PipeWriter, PipeReader) {
    let ((input, feed), (output, outlet)) = (pipe().unwrap(), pipe().unwrap());
    let (mut input, mut outlet) = (Input::own_pipe(input.into()), Outlet::own(outlet.into(), true));
    (input.reads, outlet.writes) = (Reads::Asked, Writes::Thread);
    let log = Log::default();
    let transport = adopt(Some(input), Some(outlet), Box::new(Echo(log.clone()))).unwrap();
    (transport, log, feed, output)
}

#[track_caller]
fn until(log: &Log, line: &str) {
    for _ in 0..20_000 {
        if log.borrow().iter().any(|noted| noted == line) {
            return;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("{line:?} is not told: {:?}", log.borrow());
}

fn read(mut output: PipeReader, bytes: usize) -> (Vec<u8>, PipeReader) {
    offload(move || {
        let mut data = vec![0; bytes];
        output.read_exact(&mut data).unwrap();
        (data, output)
    })
}

#[test]
fn bytes_go_both_ways_without_blocking_the_loop() {
    run(|| {
        let (_transport, log, mut feed, output) = connection();
        feed.write_all(b"hello").unwrap();
        let (data, output) = read(output, 5);
        assert_eq!(data, b"hello");
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let written = sent.clone();
        let writing = warren_hub::spawn(move || offload(move || feed.write_all(&written)));
        let (data, mut output) = read(output, sent.len());
        assert!(data == sent, "all, in order");
        writing.join().unwrap().unwrap();
        until(&log, "lost: closed by the peer");
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn the_output_ends_once_the_thread_has_written_it() {
    run(|| {
        let (transport, log, feed, output) = connection();
        transport.write(&[b'x'; 300_000]);
        transport.lose_write_connection();
        sleep(Duration::from_millis(5));
        assert!(log.borrow().is_empty() && transport.buffered() > 0);
        let (_, mut output) = read(output, 300_000);
        until(&log, "write lost");
        assert_eq!(output.read(&mut [0]).unwrap(), 0, "its end is told");
        drop(feed);
        until(&log, "lost: closed by the peer");
    });
}

#[test]
fn a_thread_that_is_stuck_holds_up_nobody() {
    run(|| {
        let (transport, log, _feed, mut output) = connection();
        transport.write(&[b'x'; 300_000]);
        sleep(Duration::from_millis(5));
        transport.abort_connection();
        until(&log, "lost: aborted here");
        // The thread ends, and the pipe is closed, once what it was writing has gone.
        let rest = offload(move || output.read_to_end(&mut Vec::new()).unwrap());
        assert!(rest < 300_000, "{rest}");
    });
}

#[test]
fn the_thread_hears_that_nobody_reads() {
    run(|| {
        let (transport, log, _feed, output) = connection();
        drop(output);
        transport.write(b"x");
        until(&log, "lost: Broken pipe (os error 32)");
    });
}
