//! Async code on a socket that always has something must not starve the other fibers.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::Write;
use std::rc::Rc;

use warren_hub::net::UnixStream;
use warren_hub::{future, run, spawn, yield_now};

#[test]
fn a_busy_socket_lets_others_run() {
    const BYTES: usize = 10_000;
    run(|| {
        let (one, mut other) = UnixStream::pair().unwrap();
        other.write_all(&[1; BYTES]).unwrap();
        let turns = Rc::new(Cell::new(0));
        let bystander = spawn({
            let turns = turns.clone();
            move || {
                loop {
                    turns.set(turns.get() + 1);
                    yield_now();
                }
            }
        });
        let read = future::wait(async {
            let mut read = 0;
            while read < BYTES {
                read += poll_fn(|cx| one.poll_read(cx, &mut [0; 1])).await.unwrap();
            }
            read
        });
        assert_eq!(read, BYTES);
        assert!(turns.get() >= 50, "{}", turns.get());
        bystander.kill();
    });
}
