//! The world itself: its clock, whose turn it is, how it ends.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use warren_hub::fs;
use warren_hub::io::Readiness;
use warren_hub::net::{TcpStream, UdpSocket};
use warren_hub::sim::{self, Simulation, World};
use warren_hub::{call_soon, shield, sleep, spawn, with_timeout, yield_now};

const HOUR: Duration = Duration::from_secs(3600);

/// The text of the panic that a simulation ends with.
fn panic_of(simulate: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(simulate)).expect_err("it panics");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast_ref::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn time_jumps() {
    let began = Instant::now();
    let outcome = sim::run(1, |world| {
        sleep(10 * HOUR);
        world.now()
    });
    assert!(outcome.value >= 10 * HOUR && outcome.value < 10 * HOUR + Duration::from_secs(1));
    assert_eq!(outcome.value, outcome.elapsed);
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_seed_decides_the_order() {
    let order = |seed| {
        let outcome = sim::run(seed, |_| {
            let order = Rc::new(RefCell::new(Vec::new()));
            let fibers: Vec<_> = (0..6)
                .map(|n| {
                    let order = order.clone();
                    spawn(move || order.borrow_mut().push(n))
                })
                .collect();
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            order.take()
        });
        (outcome.value, outcome.trace_hash)
    };
    let mut orders = Vec::new();
    for seed in 0..50 {
        let (first, second) = (order(seed), order(seed));
        assert_eq!(first, second);
        if !orders.contains(&first.0) {
            orders.push(first.0);
        }
    }
    assert!(orders.len() > 20, "seeds differ: {} orders", orders.len());
}

#[test]
fn nodes_take_turns_and_have_their_own_time_and_place() {
    sim::check(0..20, |world| {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let nodes: Vec<_> = (0..3)
            .map(|n| {
                let (world, seen) = (world.clone(), seen.clone());
                let name = format!("node {n}");
                let own = name.clone();
                world.clone().node(&name, move || {
                    sleep(Duration::from_secs(n));
                    assert_eq!(world.this_node().name(), own);
                    seen.borrow_mut().push(n);
                })
            })
            .collect();
        nodes.iter().for_each(sim::Node::join);
        assert_eq!(*seen.borrow(), [0, 1, 2]);
        assert!(nodes.iter().all(|node| !node.is_running()));
        assert_ne!(nodes[0].ip(), nodes[1].ip());
    });
}

#[test]
fn a_world_in_which_nothing_can_happen_says_who_waits() {
    let text = panic_of(|| {
        sim::run(1, |world| {
            world.node("waiter", || warren_hub::sync::Event::new().wait());
            warren_hub::sync::Event::new().wait();
        });
    });
    assert!(text.contains("the simulation is stuck"), "{text}");
    assert!(text.contains("\"waiter\"") && text.contains("waits for"), "{text}");
    assert!(text.contains("WARREN_SIM_SEED=1"), "{text}");
}

#[test]
fn limits_end_what_does_not_end() {
    let text = panic_of(|| {
        Simulation::new(1).turn_limit(1000).run(|_| {
            loop {
                yield_now();
            }
        });
    });
    assert!(text.contains("more than 1000 turns"), "{text}");
    let text = panic_of(|| {
        Simulation::new(1).time_limit(HOUR).run(|_| {
            loop {
                sleep(Duration::from_secs(1));
            }
        });
    });
    assert!(text.contains("of simulated time"), "{text}");
}

#[test]
fn a_panic_of_a_node_fails_the_simulation() {
    let text = panic_of(|| {
        sim::run(3, |world| {
            world.node("bad", || panic!("out of cheese"));
            sleep(HOUR);
        });
    });
    assert_eq!(text, "out of cheese");
    let text = panic_of(|| {
        sim::run(3, |_| panic!("out of crackers"));
    });
    assert_eq!(text, "out of crackers");
    assert!(World::current().is_none(), "nothing is left on the thread");
}

#[test]
fn a_busy_loop_sees_the_clock_move() {
    sim::run(1, |world| {
        while world.now() < Duration::from_millis(1) {
            yield_now();
        }
    });
}

struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_crash_unwinds_all_fibers_of_the_node_and_no_other() {
    sim::check(0..30, |world| {
        let dropped = Rc::new(Cell::new(0));
        let counted = dropped.clone();
        let node = world.node("mortal", move || {
            for _ in 0..5 {
                let counted = Counted(counted.clone());
                spawn(move || {
                    let _counted = counted;
                    sleep(HOUR);
                });
            }
            sleep(HOUR);
        });
        let bystander = world.node("bystander", || sleep(HOUR));
        world.advance(Duration::from_millis(world.random().below(3)));
        node.crash();
        assert!(!node.is_running() && bystander.is_running());
        assert!(dropped.get() <= 5);
        // Those that had not begun by then are gone with what their parent owned.
        assert_eq!(Rc::strong_count(&dropped), 1);
        let again = dropped.clone();
        node.restart(move || again.set(100));
        node.join();
        assert_eq!(dropped.get(), 100);
    });
}

#[test]
fn a_node_ends_itself() {
    sim::check(0..20, |world| {
        let after = Rc::new(Cell::new(false));
        let (own, seen) = (world.clone(), after.clone());
        let node = world.node("suicide", move || {
            let this = own.this_node();
            spawn(move || this.crash());
            sleep(Duration::from_secs(1));
            seen.set(true);
        });
        node.join();
        assert!(!after.get() && world.now() < Duration::from_secs(1));
    });
}

#[test]
fn a_fiber_that_swallows_its_kill_is_killed_again() {
    sim::run(1, |world| {
        let node = world.node("stubborn", || {
            for _ in 0..3 {
                let _ = catch_unwind(|| sleep(HOUR));
            }
        });
        world.advance(Duration::from_secs(1));
        node.kill();
        assert!(!node.is_running() && world.now() < HOUR);
    });
}

#[test]
fn a_fiber_that_cannot_be_unwound_is_left_behind() {
    sim::check(0..10, |world| {
        let after = Rc::new(Cell::new(false));
        let seen = after.clone();
        let node = world.node("shielded", move || {
            shield(|| sleep(Duration::from_secs(60)));
            seen.set(true);
        });
        world.advance(Duration::from_secs(1));
        node.crash();
        assert!(!node.is_running() && world.now() < Duration::from_secs(2));
        node.restart(|| ());
        node.join();
        sleep(HOUR);
        assert!(!after.get());
    });
}

#[test]
fn a_panic_in_a_callback_fails_the_simulation() {
    let text = panic_of(|| {
        sim::run(3, |world| {
            world.node("bad", || {
                call_soon(|| panic!("on the loop"));
                sleep(HOUR);
            });
            sleep(HOUR);
        });
    });
    assert_eq!(text, "on the loop");
    assert!(World::current().is_none(), "nothing is left on the thread");
    assert_eq!(sim::run(3, |_| 1).value, 1);
}

#[test]
fn destructors_of_the_dead_reach_nobody() {
    struct Last(UdpSocket);
    impl Drop for Last {
        fn drop(&mut self) {
            assert!(self.0.send_to(b"farewell", "controller:9").is_err());
            assert!(fs::write("/farewell", b"").is_err());
            // Returns at once: nobody answers.
            assert!(TcpStream::connect("controller:9").is_err());
        }
    }
    sim::check(0..20, |world| {
        let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
        let node = world.node("mortal", || {
            let _last = Last(UdpSocket::bind("0.0.0.0:0").unwrap());
            sleep(HOUR);
        });
        world.advance(Duration::from_secs(1));
        node.crash();
        let heard = with_timeout(HOUR, || socket.recv_from(&mut [0; 16]).unwrap());
        assert!(heard.is_err());
        assert!(node.disk().read("/farewell").is_err());
    });
}

#[test]
fn fibers_are_spawned_on_other_nodes() {
    sim::check(0..20, |world| {
        let node = world.node("worker", || sleep(HOUR));
        let local = Rc::new(5);
        assert_eq!(node.spawn(move || *local + 1).join().unwrap(), 6);
        let killed = node.spawn(|| sleep(HOUR));
        world.advance(Duration::from_millis(1));
        node.crash();
        assert!(killed.join().unwrap_err().is_killed());
        assert!(node.spawn(|| ()).join().unwrap_err().is_killed(), "nothing runs there");
    });
}

#[test]
fn hubs_post_to_each_other_and_offload() {
    sim::check(0..20, |world| {
        let place = Rc::new(RefCell::new(None));
        let own = place.clone();
        let node = world.node("other", move || {
            *own.borrow_mut() = Some(warren_hub::handle());
            sleep(HOUR);
        });
        world.advance(Duration::from_millis(1));
        let handle = place.borrow().clone().unwrap();
        let sum = handle.spawn(|| warren_hub::offload(|| (1..=10).sum::<u32>())).unwrap();
        assert_eq!(sum.join().unwrap(), 55);
        assert!(world.now() > Duration::from_millis(1), "a job takes time");
        node.kill();
        assert!(handle.post(|| ()).is_err());
    });
}

#[test]
fn idle_fibers_run_when_nothing_else_does() {
    sim::run(1, |world| {
        let busy = spawn(|| (0..100).for_each(|_| yield_now()));
        warren_hub::idle();
        assert!(busy.ready());
        assert!(world.now() < Duration::from_secs(1));
    });
}

#[test]
fn a_paused_node_does_nothing_and_then_sees_the_time() {
    sim::check(0..20, |world| {
        let ticks = Rc::new(Cell::new(0));
        let own = ticks.clone();
        let node = world.node("ticker", move || {
            loop {
                sleep(Duration::from_secs(1));
                own.set(own.get() + 1);
            }
        });
        world.advance(Duration::from_millis(2500));
        node.pause();
        world.advance(HOUR);
        assert_eq!(ticks.get(), 2);
        node.resume();
        world.advance(Duration::from_millis(100));
        assert_eq!(ticks.get(), 3, "what was missed is not made up for");
    });
}

#[test]
fn the_time_of_day_and_chance_come_from_the_seed() {
    sim::check(0..5, |world| {
        let asked = || {
            let mut bytes = [0; 8];
            warren_hub::fill_random(&mut bytes);
            (warren_hub::system_time(), u64::from_le_bytes(bytes))
        };
        let node = world.node("ahead", || sleep(HOUR));
        node.clock_ahead(HOUR);
        let (here, there) = (asked(), node.spawn(asked).join().unwrap());
        assert!(there.0.duration_since(here.0).unwrap() >= HOUR);
        world.note(here.1 ^ there.1);
    });
}

#[test]
fn what_needs_the_kernel_is_refused() {
    sim::run(1, |_| {
        let unsupported = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::Unsupported);
        unsupported(warren_hub::HubGroup::start(2).unwrap_err());
        let (reader, _writer) = std::io::pipe().unwrap();
        let wait = warren_hub::io::wait_fd(reader.as_fd(), Readiness::READABLE, None);
        unsupported(wait.unwrap_err());
    });
}

#[test]
fn buggify_is_at_peace_outside_and_decided_by_the_seed_inside() {
    assert!((0..100).all(|_| !sim::buggify(1.0)));
    let hits = |seed| sim::run(seed, |_| (0..100).filter(|_| sim::buggify(0.5)).count()).value;
    let counts: Vec<usize> = (0..20).map(hits).collect();
    assert!(counts.contains(&0) && counts.iter().any(|&count| count > 25), "{counts:?}");
    assert_eq!(counts, (0..20).map(hits).collect::<Vec<_>>());
}

#[test]
fn what_differs_between_two_runs_is_found() {
    let runs = Rc::new(Cell::new(0));
    let text = panic_of(|| {
        sim::check([7], move |world| {
            runs.set(runs.get() + 1);
            world.note(runs.get());
        });
    });
    assert!(text.contains("two runs of seed"), "{text}");
}
