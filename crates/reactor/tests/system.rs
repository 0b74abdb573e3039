//! Starting and stopping: phases, triggers, time limits, errors, signals.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use warren_hub::signal::Signal;
use warren_hub::{call_soon, sleep, spawn};
use warren_reactor::{
    AnyError, Deferred, Failure, ReactorNotRunning, RunError, Runner, StopCause, SystemEvent,
    TriggerPhase, add_system_event_trigger, call_in_thread, call_later, call_when_running,
    defer_later, fire_system_event, is_running, react, remove_system_event_trigger, run,
    spawn_deferred, stop,
};

use TriggerPhase::{After, Before, During};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn say(&self, text: &str) {
        self.0.borrow_mut().push(text.into());
    }

    /// Says `text`, and whether the reactor runs.
    fn saying(&self, text: &'static str) -> impl FnOnce() + use<> {
        let log = self.clone();
        move || log.say(&format!("{text} {}", is_running()))
    }

    fn trigger(&self, phase: TriggerPhase, event: &'static str, text: &'static str) {
        add_system_event_trigger(phase, event, self.saying(text));
    }

    fn text(&self) -> String {
        self.0.take().join(", ")
    }
}

fn quiet() -> Runner {
    Runner::new().without_signals()
}

fn stop_when_running() {
    call_when_running(|| stop().unwrap());
}

/// Runs a program that stops as soon as it runs.
fn run_once(runner: &Runner, main: impl FnOnce() + 'static) -> warren_reactor::Stopped {
    let main = move || -> io::Result<()> {
        main();
        stop_when_running();
        Ok(())
    };
    runner.run(main).unwrap()
}

/// Runs a program in which `main` says things, and gives them.
fn said(main: impl FnOnce(Log) + 'static) -> String {
    warren_hub::run(move || {
        let log = Log::default();
        let inside = log.clone();
        run_once(&quiet(), move || main(inside));
        log.text()
    })
}

#[test]
fn phases_come_in_order() {
    let text = said(|log| {
        for event in ["shutdown", "startup"] {
            for (phase, text) in [(After, "after"), (During, "during"), (Before, "before")] {
                log.trigger(phase, event, text);
            }
        }
        log.trigger(Before, "startup", "before too");
        call_when_running(log.saying("when running"));
        log.say(&format!("main {}", is_running()));
    });
    assert_eq!(
        text,
        "main false, before false, before too false, during true, after true, when running true, \
         before true, during false, after false"
    );
}

#[test]
fn the_first_phase_is_waited_for() {
    let text = said(|log| {
        let (one, two, three) = (log.clone(), log.clone(), log.clone());
        add_system_event_trigger(Before, "shutdown", move || {
            defer_later::<_, AnyError>(2 * MS, move || {
                one.say("deferred");
                Ok(())
            })
        });
        add_system_event_trigger(Before, "shutdown", move || {
            spawn(move || {
                sleep(4 * MS);
                two.say("fiber");
            })
        });
        add_system_event_trigger(During, "shutdown", move || {
            defer_later::<_, AnyError>(HOUR, move || {
                three.say("never");
                Ok(())
            })
        });
        log.trigger(Before, "shutdown", "at once");
        log.trigger(During, "shutdown", "during");
    });
    assert_eq!(text, "at once true, deferred, fiber, during false");
}

#[test]
fn a_start_is_held_up_as_well() {
    let text = said(|log| {
        let other = log.clone();
        add_system_event_trigger(Before, "startup", move || {
            spawn(move || {
                sleep(MS);
                other.say("ready");
            })
        });
        log.trigger(During, "startup", "during");
    });
    assert_eq!(text, "ready, during true");
}

#[test]
fn failures_stop_nothing_and_are_counted() {
    let stopped = run_once(&quiet(), || {
        add_system_event_trigger(Before, "startup", || Err::<(), _>(AnyError::new("by a test")));
        add_system_event_trigger(Before, "shutdown", || -> () { panic!("expected by a test") });
        add_system_event_trigger(During, "shutdown", || Err::<(), _>(AnyError::new("by a test")));
        add_system_event_trigger(After, "shutdown", || ());
    });
    assert_eq!((stopped.failed, stopped.late, stopped.cause), (2, 0, StopCause::Call));
}

#[test]
fn a_shutdown_has_a_limit() {
    let cancelled = Rc::new(Cell::new(0));
    let count = cancelled.clone();
    let stopped = run_once(&quiet().shutdown_timeout(5 * MS), move || {
        struct Counted(Rc<Cell<u32>>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let counted = Counted(count.clone());
        add_system_event_trigger(Before, "shutdown", move || {
            spawn(move || {
                let _counted = counted;
                sleep(HOUR);
            })
        });
        add_system_event_trigger(Before, "shutdown", move || {
            let never = Deferred::<()>::pending_with_canceller(move || count.set(count.get() + 1));
            // Nobody fires it.
            std::mem::forget(never.1);
            never.0
        });
        add_system_event_trigger(Before, "shutdown", || defer_later::<_, AnyError>(MS, || Ok(())));
    });
    assert_eq!((stopped.failed, stopped.late), (2, 2));
    assert_eq!(cancelled.get(), 2);
}

#[test]
fn jobs_on_threads_are_waited_for() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    run_once(&quiet(), move || {
        call_in_thread(move || {
            let _ = gate.recv();
            sender.send("done").unwrap();
        });
        add_system_event_trigger(After, "shutdown", move || drop(release));
    });
    assert_eq!(receiver.try_recv(), Ok("done"));
}

#[test]
fn a_trigger_can_be_removed() {
    let text = said(|log| {
        let id = add_system_event_trigger(During, "startup", log.saying("never"));
        assert!(remove_system_event_trigger(&id) && !remove_system_event_trigger(&id));
        let later = add_system_event_trigger(Before, "startup", log.saying("removed in time"));
        assert!(remove_system_event_trigger(&later));
        let when = call_when_running(log.saying("never"));
        assert!(remove_system_event_trigger(&when.unwrap()));
        call_when_running(move || {
            assert!(call_when_running(log.saying("at once")).is_none());
            log.say("then");
        });
    });
    assert_eq!(text, "at once true, then");
}

#[test]
fn a_trigger_may_add_and_remove_triggers() {
    let text = said(|log| {
        let called = log.clone();
        let last = add_system_event_trigger(Before, "shutdown", log.saying("never"));
        let adding = log.clone();
        add_system_event_trigger(Before, "startup", move || {
            adding.trigger(Before, "startup", "added");
            assert!(remove_system_event_trigger(&last));
            called.say("first");
        });
    });
    assert_eq!(text, "first, added false");
}

#[test]
fn a_program_has_events_of_its_own() {
    let text = said(|log| {
        assert_eq!(SystemEvent::from("reload").to_string(), "reload");
        let waited = log.clone();
        add_system_event_trigger(Before, "reload", move || {
            spawn(move || {
                sleep(MS);
                waited.say("settings read");
            })
        });
        log.trigger(After, "reload", "reloaded");
        fire_system_event("reload").wait().unwrap();
        // Triggers are called once.
        fire_system_event("reload").wait().unwrap();
        fire_system_event("nobody waits for this").wait().unwrap();
    });
    assert_eq!(text, "settings read, reloaded false");
}

#[test]
fn what_runs_is_told_from_what_does_not() {
    warren_hub::run(|| {
        assert_eq!(stop(), Err(ReactorNotRunning));
        let twice = Rc::new(Cell::new(None));
        let seen = twice.clone();
        run_once(&quiet(), move || {
            assert_eq!(stop(), Err(ReactorNotRunning), "not before it has started");
            call_when_running(move || {
                spawn(|| {
                    let again = run(|| Ok::<(), RunError>(()));
                    assert!(matches!(again, Err(RunError::AlreadyRunning)), "{again:?}");
                });
            });
            add_system_event_trigger(Before, "shutdown", move || seen.set(Some(stop())));
        });
        assert_eq!(twice.get(), Some(Err(ReactorNotRunning)));
        assert_eq!(stop(), Err(ReactorNotRunning));
        let again = run(|| Ok::<(), RunError>(()));
        assert!(matches!(again, Err(RunError::NotRestartable)), "{again:?}");
    });
    // Another hub has another reactor.
    run_once(&quiet(), || ());
}

#[test]
fn a_reactor_can_be_stopped_while_it_starts() {
    let text = warren_hub::run(|| {
        let log = Log::default();
        let inside = log.clone();
        let stopped = quiet().run(move || -> io::Result<()> {
            add_system_event_trigger(Before, "startup", || stop().unwrap());
            for event in ["startup", "shutdown"] {
                inside.trigger(After, event, event);
            }
            Ok(())
        });
        assert_eq!(stopped.unwrap().failed, 0);
        log.text()
    });
    assert_eq!(text, "startup true, shutdown false");
}

#[test]
fn main_may_fail_and_be_tried_again() {
    warren_hub::run(|| {
        let failed = quiet().run(|| Err::<(), _>(io::Error::other("no port")));
        assert_eq!(failed.unwrap_err().to_string(), "no port");
        let dropped = Rc::new(());
        let kept = dropped.clone();
        let stopped = quiet().run(move || -> io::Result<_> {
            call_when_running(|| {
                call_later(MS, || stop().unwrap());
            });
            Ok(kept)
        });
        assert_eq!(stopped.unwrap().cause, StopCause::Call);
        assert_eq!(Rc::strong_count(&dropped), 1);
    });
}

#[test]
fn a_panic_in_main_goes_on() {
    let panicked = std::panic::catch_unwind(|| {
        let _ = quiet().run(|| -> io::Result<()> { panic!("expected by a test") });
    });
    assert!(panicked.is_err());
}

#[test]
fn react_runs_one_thing() {
    let value = react(|| spawn_deferred::<_, AnyError>(|| Ok(7)));
    assert_eq!(value.unwrap(), 7);
    let failed = react(|| Deferred::<(), _>::fail(AnyError::new("no such host")));
    assert_eq!(failed.unwrap_err().to_string(), "no such host");
    let panicked = react(|| -> Deferred<()> { panic!("expected by a test") });
    assert!(matches!(panicked, Err(Failure::Panicked(_))));
    let stopped = react(|| {
        call_soon(|| stop().unwrap());
        defer_later::<_, AnyError>(HOUR, || Ok(()))
    });
    assert!(stopped.unwrap_err().is_cancelled());
}

/// A test in a process of its own, whose signals concern nobody else: this test calls its own program.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("SYSTEM_TEST_CHILD", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(process, signal).unwrap();
    }

    /// Waits for a line that ends so.
    fn expect(&mut self, want: &str) {
        let said = self.lines.any(|line| line.unwrap().ends_with(want));
        assert!(said, "the program did not say {want}");
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn is_child() -> bool {
    std::env::var_os("SYSTEM_TEST_CHILD").is_some()
}

#[test]
fn a_signal_stops_in_order() {
    if is_child() {
        let stopped = run(|| -> io::Result<()> {
            call_when_running(|| println!("ready"));
            add_system_event_trigger(Before, "shutdown", || spawn(|| sleep(MS)));
            add_system_event_trigger(After, "shutdown", || println!("shut down"));
            Ok(())
        });
        match stopped.unwrap().cause {
            StopCause::Signal(signal) => println!("by {}", signal.as_raw()),
            StopCause::Call => println!("by itself"),
        }
        return;
    }
    for sent in [Signal::TERM, Signal::INT] {
        let mut program = Program::start("a_signal_stops_in_order");
        program.expect("ready");
        program.signal(sent);
        program.expect("shut down");
        program.expect(&format!("by {}", sent.as_raw()));
        assert_eq!(program.exit_code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    if is_child() {
        let _ = run(|| -> io::Result<()> {
            add_system_event_trigger(Before, "shutdown", || {
                println!("busy");
                spawn(|| sleep(HOUR))
            });
            call_when_running(|| println!("ready"));
            Ok(())
        });
        return;
    }
    let mut program = Program::start("a_second_signal_ends_at_once");
    program.expect("ready");
    program.signal(Signal::TERM);
    program.expect("busy");
    program.signal(Signal::INT);
    assert_eq!(program.exit_code(), Some(128 + 2));
}

/// Waits for a line from the test, while the loop turns.
fn wait_for_a_line() {
    warren_hub::offload(|| io::stdin().read_line(&mut String::new())).unwrap();
}

#[test]
fn a_signal_that_comes_early_stops_what_has_just_started() {
    if is_child() {
        let stopped = run(|| -> io::Result<()> {
            println!("ready");
            wait_for_a_line();
            add_system_event_trigger(After, "startup", || println!("started"));
            add_system_event_trigger(After, "shutdown", || println!("shut down"));
            Ok(())
        });
        assert_eq!(stopped.unwrap().cause, StopCause::Signal(Signal::TERM));
        return;
    }
    let mut program = Program::start("a_signal_that_comes_early_stops_what_has_just_started");
    program.expect("ready");
    program.signal(Signal::TERM);
    program.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    program.expect("started");
    program.expect("shut down");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn a_signal_during_a_stop_waits_for_it() {
    if is_child() {
        let stopped = run(|| -> io::Result<()> {
            add_system_event_trigger(Before, "shutdown", || {
                println!("busy");
                spawn(wait_for_a_line)
            });
            call_when_running(|| stop().unwrap());
            Ok(())
        });
        println!("by {:?}", stopped.unwrap().cause);
        return;
    }
    let mut program = Program::start("a_signal_during_a_stop_waits_for_it");
    program.expect("busy");
    program.signal(Signal::TERM);
    program.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    program.expect("by Call");
    assert_eq!(program.exit_code(), Some(0));
}
