//! What a program can find out about its fibers while it runs.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::run;
use warren_hub::net::UnixStream;
use warren_hub::sync::Event;
use warren_hub::{Blocked, Builder, Watchdog, backdoor, run_info, sleep, spawn, yield_now};

#[inline(never)]
fn a_wait_of_its_own(event: &Event) {
    event.wait();
    std::hint::black_box(());
}

#[test]
fn every_fiber_is_told_with_its_stack_and_who_spawned_it() {
    run(|| {
        let event = Rc::new(Event::new());
        let inner_event = event.clone();
        let outer = Builder::new()
            .name("outer")
            .spawn(move || {
                let inner = spawn(move || a_wait_of_its_own(&inner_event));
                inner.join().unwrap();
            })
            .unwrap();
        spawn(|| ());
        yield_now();
        yield_now();
        let not_begun = Builder::new().name("late").spawn(|| ()).unwrap();
        let info = run_info();
        let [main, outer_info, inner, late] = &info.fibers[..] else { panic!("{info}") };
        assert_eq!(main.state, "runs");
        assert_eq!(outer_info.name.as_deref(), Some("outer"));
        assert_eq!(inner.parent, Some(outer_info.id));
        assert_eq!(
            (inner.state.as_str(), late.state.as_str()),
            ("waits for an event", "has not begun")
        );
        assert!(inner.spawned_at.file().ends_with("diagnostics.rs"));
        let frames = inner.stack.frames();
        assert!(
            frames.iter().any(|frame| frame.function.contains("a_wait_of_its_own")),
            "{:?}",
            inner.stack
        );
        let hubs_own = ["corosensei", "warren_hub::hub::", "backtrace::"];
        assert!(
            !frames.iter().any(|frame| hubs_own.iter().any(|own| frame.function.starts_with(own)))
        );
        assert!(late.stack.frames().is_empty());
        let text = info.to_string();
        assert!(
            text.contains("\n    fiber 3, spawned at")
                || text.contains("\n    fiber 4, spawned at"),
            "the tree is indented: {text}"
        );
        // Looking changes nothing.
        assert!(!outer.ready());
        event.set();
        outer.join().unwrap();
        not_begun.join().unwrap();
    });
}

#[test]
fn a_hub_that_waits_for_ever_says_who_waits_for_what() {
    let caught = std::panic::catch_unwind(|| {
        run(|| {
            let fiber = Builder::new().name("forgotten").spawn(|| a_wait_of_its_own(&Event::new()));
            fiber.unwrap().join().unwrap();
        })
    });
    let caught = caught.unwrap_err();
    let text = caught.downcast_ref::<String>().unwrap();
    for part in ["waits for ever", "forgotten (fiber 2)", "diagnostics.rs", "a_wait_of_its_own"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn the_backdoor_prints_fibers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door");
    run({
        let path = path.clone();
        move || {
            let door = backdoor(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let sleeper =
                Builder::new().name("sleeper").spawn(|| sleep(Duration::from_secs(60))).unwrap();
            yield_now();
            let stream = UnixStream::connect(&path).unwrap();
            let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
            (&stream).write_all(b"fibers\n").unwrap();
            let count = lines.next().unwrap();
            assert!(count.contains(" descriptors, "), "{count}");
            lines.find(|line| line.contains("sleeper (fiber") && line.contains("waits for a time"));
            (&stream).write_all(b"nonsense\ncount\nquit\n").unwrap();
            let mut rest = String::new();
            drop(lines);
            (&stream).read_to_string(&mut rest).unwrap();
            assert!(rest.contains("no command \"nonsense\""), "{rest}");
            sleeper.kill();
            drop(door);
            assert!(!path.exists());
        }
    });
}

#[test]
fn the_watchdog_names_the_fiber_that_blocks() {
    let (told, blocked) = mpsc::channel::<Blocked>();
    run(move || {
        let dog = Watchdog::with_report(Duration::from_millis(20), move |blocked| {
            let _ = told.send(blocked);
        });
        // Waiting is no blocking.
        sleep(Duration::from_millis(60));
        let busy = Builder::new().name("busy").spawn(compute_until_told).unwrap();
        let id = busy.id();
        // Computes until the report is there.
        thread_local! {
            static REPORT: std::cell::RefCell<Option<mpsc::Receiver<Blocked>>> =
                const { std::cell::RefCell::new(None) };
        }
        #[inline(never)]
        fn compute_until_told() -> Blocked {
            REPORT.with_borrow(|report| {
                let report = report.as_ref().unwrap();
                let began = Instant::now();
                loop {
                    assert!(began.elapsed() < Duration::from_secs(60), "no report");
                    if let Ok(blocked) = report.try_recv() {
                        return blocked;
                    }
                    std::hint::spin_loop();
                }
            })
        }
        REPORT.set(Some(blocked));
        let report = busy.join().unwrap();
        assert_eq!(report.fiber, Some(id));
        assert_eq!(report.name.as_deref(), Some("busy"));
        assert!(Duration::from_millis(20) <= report.since);
        assert!(report.culprit().contains("diagnostics.rs"), "{}", report.culprit());
        let frames = report.stack.frames();
        assert!(
            frames.iter().any(|frame| frame.function.contains("compute_until_told")),
            "{frames:?}"
        );
        drop(dog);
    });
}
