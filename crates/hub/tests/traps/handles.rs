//! What refers to a hub, and is used when that has ended, or on another one; and callbacks that end what called them.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::io::{IoHandler, Readiness, Registration, register};
use warren_hub::net::{TcpListener, TcpStream, UnixStream};
use warren_hub::sync::{Event, Mutex, Queue, Semaphore};
use warren_hub::{
    FiberId, JoinHandle, Phase, SwitchHook, SwitchHookGuard, Timeout, TurnHook, TurnHookGuard,
    call_later, join_all, on_switch, on_turn_end, run, sleep, spawn, spawn_later, with_timeout,
    yield_now,
};

use crate::{Count, LONG, SHORT};

#[test]
fn the_hub_grows_while_fibers_are_suspended() {
    const FIBERS: usize = 300;
    let sum = run(|| {
        let fibers = (0..FIBERS).map(|n| {
            spawn(move || {
                // Places, timers and descriptors are added while each of these waits.
                let (mut here, mut there) = UnixStream::pair().unwrap();
                let inner = spawn(move || {
                    let mut byte = [0];
                    with_timeout(LONG, || here.read_exact(&mut byte)).unwrap().unwrap();
                    usize::from(byte[0])
                });
                let _later = call_later(LONG, || ());
                let _timeout = Timeout::start(LONG);
                sleep(Duration::from_millis(n as u64 % 5));
                there.write_all(&[n as u8]).unwrap();
                inner.join().unwrap()
            })
        });
        join_all(fibers).into_iter().map(Result::unwrap).sum::<usize>()
    });
    assert_eq!(sum, (0..FIBERS).map(|n| n % 256).sum());
}

#[test]
fn a_handle_of_a_fiber_that_has_ended_does_not_mean_the_next_in_its_place() {
    run(|| {
        let event = Rc::new(Event::new());
        let waited = event.clone();
        let first = spawn(move || waited.wait_timeout(SHORT).is_ok());
        first.wait();
        let second = spawn(|| with_timeout(Duration::from_millis(20), || sleep(LONG)));
        yield_now();
        // None of these is for it.
        first.kill();
        first.throw(Box::new("late"));
        event.set();
        assert!(second.join().unwrap().is_err(), "it slept till its time was out");
        assert!(!first.join().unwrap());
    });
}

#[test]
fn handles_are_harmless_when_their_hub_has_ended() {
    struct Kept {
        ended: JoinHandle<u32>,
        killed: JoinHandle<()>,
        never: JoinHandle<()>,
        timeout: Timeout,
        timer: warren_hub::Timer,
    }
    let kept = run(|| {
        let ended = spawn(|| 7);
        ended.wait();
        let killed = spawn(|| sleep(LONG));
        let never = spawn_later(LONG, || ());
        yield_now();
        let timer = call_later(LONG, || ());
        Kept { ended, killed, never, timeout: Timeout::start(LONG), timer }
    });
    let use_them = |kept: &Kept| {
        for fiber in [&kept.killed, &kept.never] {
            fiber.kill();
            fiber.throw(Box::new("late"));
            assert!(fiber.ready() && fiber.successful() && fiber.started());
            assert!(fiber.wait_timeout(LONG) && fiber.get().is_err());
        }
        assert_eq!(kept.ended.value(), Some(7));
        assert!(!kept.timeout.pending() && !kept.timer.cancel());
        kept.timeout.cancel();
    };
    use_them(&kept);
    let kept = run(move || {
        // A fiber and a timer in the same places.
        let fired = Rc::new(Cell::new(false));
        let seen = fired.clone();
        let _timer = call_later(SHORT, move || seen.set(true));
        let other = spawn(|| sleep(SHORT));
        yield_now();
        use_them(&kept);
        other.join().unwrap();
        sleep(SHORT);
        assert!(fired.get());
        kept
    });
    assert_eq!(kept.ended.join().unwrap(), 7);
    assert!(kept.killed.join().is_err() && kept.never.join().is_err());
}

#[test]
fn objects_to_wait_for_pass_from_hub_to_hub() {
    let objects =
        || Rc::new((Event::new(), Semaphore::new(0), Mutex::new(0), Queue::<u32>::bounded(1)));
    let kept = run(move || {
        let kept = objects();
        for which in 0..4 {
            let kept = kept.clone();
            // Killed at the end while it waits.
            spawn(move || match which {
                0 => kept.0.wait(),
                1 => kept.1.acquire().forget(),
                2 => {
                    let _lock = kept.2.lock();
                    sleep(LONG);
                }
                _ => drop(kept.3.get()),
            });
        }
        yield_now();
        kept
    });
    kept.0.set();
    kept.0.clear();
    kept.1.release();
    *kept.2.try_lock().unwrap() += 1;
    run(move || {
        let waiting = kept.clone();
        let fiber = spawn(move || {
            waiting.0.wait();
            waiting.1.acquire().forget();
            let got = waiting.3.get().unwrap();
            *waiting.2.lock() + got
        });
        yield_now();
        kept.0.set();
        kept.3.put(1).unwrap();
        assert_eq!(fiber.join().unwrap(), 2);
    });
}

struct Told(Cell<u32>);

impl IoHandler for Told {
    fn io_ready(&self, _: Readiness) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_registration_ends_its_own_watch_and_not_that_of_the_next_hub() {
    let watch = |stream: &StdStream| {
        let told = Rc::new(Told(Cell::new(0)));
        (register(stream.as_fd(), told.clone()).unwrap(), told)
    };
    let (one, mut one_peer) = StdStream::pair().unwrap();
    let (other, mut other_peer) = StdStream::pair().unwrap();
    let old = run(move || (watch(&one).0, one));
    let old_socket = run(|| UnixStream::pair().unwrap());
    one_peer.write_all(b"x").unwrap();
    run(move || {
        // As far as its number goes it could be the same.
        let (_registration, told) = watch(&other);
        sleep(SHORT);
        let before = told.0.get();
        old.0.again(Readiness::READABLE);
        old.0.again_later().again(Readiness::READABLE);
        sleep(SHORT);
        assert_eq!(told.0.get(), before);
        drop((old, old_socket));
        other_peer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert!(before < told.0.get(), "it is still watched");
    });
}

#[test]
fn a_hub_ends_while_fibers_hold_sockets() {
    let count = Count::default();
    let (reading, accepting, writing) = (count.alive(), count.alive(), count.alive());
    let mut peer = run(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let peer = std::net::TcpStream::connect(addr).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let (mut full, silent) = UnixStream::pair().unwrap();
        let silent = Rc::new(silent);
        spawn(move || {
            let _alive = reading;
            accepted.read(&mut [0])
        });
        spawn(move || {
            let _alive = accepting;
            listener.accept().map(|(stream, _): (TcpStream, _)| stream)
        });
        let kept = silent.clone();
        spawn(move || {
            let _alive = (writing, kept);
            full.write_all(&vec![0; 16 << 20])
        });
        sleep(SHORT);
        peer
    });
    assert_eq!(count.get(), 0);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "its socket was closed");
}

#[test]
fn a_callback_may_end_what_called_it() {
    struct Once<G> {
        guard: RefCell<Option<G>>,
        calls: Rc<Cell<u32>>,
        own: OnceCell<Box<u32>>,
    }
    impl<G> Once<G> {
        fn new(calls: &Rc<Cell<u32>>) -> Rc<Self> {
            Rc::new(Self { guard: RefCell::new(None), calls: calls.clone(), own: OnceCell::new() })
        }
        fn call(&self) {
            self.calls.set(self.calls.get() + 1);
            // With it goes what may be the last handle but the caller's.
            drop(self.guard.take());
            self.own.get_or_init(|| Box::new(7));
        }
    }
    impl IoHandler for Once<Registration> {
        fn io_ready(&self, _: Readiness) {
            self.call();
        }
    }
    impl TurnHook for Once<TurnHookGuard> {
        fn turn_end(&self) {
            self.call();
        }
    }
    impl SwitchHook for Once<SwitchHookGuard> {
        fn switched_in(&self, _: FiberId) {}
        fn switched_out(&self, _: FiberId) {
            self.call();
        }
    }
    run(|| {
        let calls = Rc::new(Cell::new(0));
        let (one, _peer) = StdStream::pair().unwrap();
        let handler = Once::new(&calls);
        *handler.guard.borrow_mut() = Some(register(one.as_fd(), handler.clone()).unwrap());
        drop(handler);
        let hook = Once::new(&calls);
        *hook.guard.borrow_mut() = Some(on_turn_end(Phase::Work, hook.clone()));
        drop(hook);
        let hook = Once::new(&calls);
        *hook.guard.borrow_mut() = Some(on_switch(hook.clone()));
        drop(hook);
        sleep(Duration::from_millis(5));
        yield_now();
        assert_eq!(calls.get(), 3);
        // A link that takes itself back, and a timer that cancels itself.
        let fiber = Rc::new(spawn(|| 1));
        let (own, own_id) = (Rc::downgrade(&fiber), Rc::new(Cell::new(None)));
        let id = own_id.clone();
        own_id.set(Some(fiber.link(move |_| {
            let own = own.upgrade().unwrap();
            assert!(!own.unlink(id.get().unwrap()));
            assert_eq!(own.value(), Some(1));
        })));
        fiber.wait();
        let timer = Rc::new(Cell::new(None::<warren_hub::Timer>));
        let own = timer.clone();
        timer.set(Some(call_later(SHORT, move || assert!(!own.take().unwrap().cancel()))));
        sleep(Duration::from_millis(5));
        assert!(timer.take().is_none());
    });
}

#[test]
fn a_thread_local_of_another_library_is_safe_in_a_region_without_waits_or_behind_a_hook() {
    thread_local! {
        /// What a scope has set, for as long as it lasts.
        static SCOPED: Cell<u32> = const { Cell::new(0) };
    }
    fn set<R>(value: u32, f: impl FnOnce() -> R) -> R {
        struct Reset(u32);
        impl Drop for Reset {
            fn drop(&mut self) {
                SCOPED.set(self.0);
            }
        }
        let _reset = Reset(SCOPED.replace(value));
        f()
    }
    struct Save(RefCell<std::collections::BTreeMap<FiberId, u32>>);
    impl SwitchHook for Save {
        fn switched_in(&self, fiber: FiberId) {
            SCOPED.set(self.0.borrow().get(&fiber).copied().unwrap_or(0));
        }
        fn switched_out(&self, fiber: FiberId) {
            self.0.borrow_mut().insert(fiber, SCOPED.replace(0));
        }
    }
    run(|| {
        let interleaved = || {
            let one = spawn(|| set(1, || (yield_now(), SCOPED.get()).1));
            let two = spawn(|| set(2, || (yield_now(), yield_now(), SCOPED.get()).2));
            let seen = (one.join().unwrap(), two.join().unwrap());
            (seen, SCOPED.replace(0))
        };
        // The trap: each sees the other's value, and one stays behind when both scopes are over.
        assert_eq!(interleaved(), ((2, 0), 1));
        let hook = on_switch(Rc::new(Save(RefCell::default())));
        yield_now();
        assert_eq!(interleaved(), ((1, 2), 0));
        drop(hook);
        // Without a hook: code that would wait there is found out.
        let refused = spawn(|| set(1, || warren_hub::no_wait(yield_now)));
        assert!(refused.join().unwrap_err().message().unwrap().contains("must not wait"));
        assert_eq!(SCOPED.get(), 0);
    });
}
