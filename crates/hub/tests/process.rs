//! Child processes and signals: what Python's `subprocess` documents, with the other fibers going on.

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use support::run;
use warren_hub::process::{Command, Stdio};
use warren_hub::signal::{self, Signal, Signals};
use warren_hub::{sleep, spawn, yield_now};

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Whether there is such a process, be it dead but not reaped.
fn is_there(id: u32) -> bool {
    std::path::Path::new(&format!("/proc/{id}")).exists()
}

fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LONG, "it does not happen");
        sleep(SHORT);
    }
}

#[test]
fn statuses_tell_how_it_ended() {
    run(|| {
        assert!(Command::new("true").status().unwrap().success());
        assert_eq!(shell("exit 3").status().unwrap().code(), Some(3));
        assert_eq!(shell("kill -9 $$").status().unwrap().signal(), Some(9));
        let error = Command::new("/nothing/of/this/name").status().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn output_is_collected_from_both_streams() {
    run(|| {
        let mut command = shell("cat; echo out; echo err >&2; echo $NAME; pwd; exit 1");
        command.env("NAME", "of the child").current_dir("/");
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"out\nof the child\n/\n", "and nothing to read");
        assert_eq!((output.stderr.as_slice(), output.status.code()), (&b"err\n"[..], Some(1)));
        assert_eq!(shell("printf fine").check_output().unwrap(), b"fine");
        let error = shell("echo sorry >&2; exit 2").check_output().unwrap_err().to_string();
        assert_eq!(error, "\"sh\" failed (exit status: 2): sorry");
    });
}

#[test]
fn others_run_meanwhile_and_many_children_at_once() {
    run(|| {
        let children: Vec<_> = (0..20)
            .map(|n| spawn(move || shell(&format!("sleep 0.05; echo {n}")).output()))
            .collect();
        let mut turns = 0u64;
        while !children.iter().all(|child| child.is_finished()) {
            turns += 1;
            sleep(SHORT);
        }
        assert!(turns > 1);
        for (n, child) in children.into_iter().enumerate() {
            let output = child.join().unwrap().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{n}\n"));
        }
    });
}

#[test]
fn communicating_does_not_deadlock_on_full_pipes() {
    run(|| {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let output = child.communicate(input.clone()).unwrap();
        assert!(output.status.success() && output.stdout == input);

        // It ends without reading.
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        assert!(child.communicate(input).unwrap().status.success());
    });
}

#[test]
fn streams_are_read_and_written_step_by_step() {
    run(|| {
        let mut child = shell("while read line; do echo \"got $line\"; done; echo end")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        for n in 0..3 {
            writeln!(stdin, "line {n}").unwrap();
            assert_eq!(lines.next().unwrap(), format!("got line {n}"));
        }
        assert_eq!(child.try_wait().unwrap(), None);
        drop(stdin);
        assert_eq!(lines.next().unwrap(), "end");
        assert!(child.wait().unwrap().success());
        assert!(child.try_wait().unwrap().unwrap().success());
    });
}

#[test]
fn one_child_feeds_another() {
    run(|| {
        let mut first = shell("seq 1 1000").stdout(Stdio::piped()).spawn().unwrap();
        let pipe = first.stdout.take().unwrap().into_blocking().unwrap();
        let output = Command::new("tail").arg("-n1").stdin(pipe).output().unwrap();
        assert_eq!(output.stdout, b"1000\n");
        assert!(first.wait().unwrap().success());
    });
}

#[test]
fn waits_with_a_timeout_leave_the_child_running() {
    run(|| {
        let mut child = shell("read line; echo $line")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
        child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
        assert!(child.wait_timeout(LONG).unwrap().unwrap().success());
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
    });
}

#[test]
fn communicating_with_a_timeout_loses_nothing() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        let script = format!("cat; until test -e {}; do sleep 0.01; done; echo late", go.display());
        let mut child =
            shell(&script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(child.communicate_timeout(b"early ".to_vec(), SHORT).unwrap(), None);
        std::fs::write(&go, "").unwrap();
        let output = child.communicate_timeout(Vec::new(), LONG).unwrap().unwrap();
        assert_eq!(output.stdout, b"early late\n");

        let error = shell("sleep 60").output_timeout(SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().ends_with("ran longer than 2ms, and was killed"), "{error}");
    });
}

#[test]
fn signals_end_a_child_and_ended_ones_get_none() {
    run(|| {
        let mut child = shell("sleep 60").spawn().unwrap();
        child.terminate().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
        assert_eq!(child.signal(Signal::TERM).unwrap_err().kind(), ErrorKind::NotFound);
        child.kill().unwrap();
        let mut child = shell("sleep 60").spawn().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    });
}

#[test]
fn a_dropped_child_is_reaped_and_killed_only_when_asked() {
    run(|| {
        let child = shell("read line").stdin(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let mut child = child;
        let stdin = child.stdin.take();
        drop(child);
        assert!(is_there(id));
        drop(stdin);
        until(|| !is_there(id));

        let child = shell("sleep 60").kill_on_drop(true).spawn().unwrap();
        let id = child.id();
        drop(child);
        until(|| !is_there(id));
    });
}

#[test]
fn a_killed_fiber_takes_the_program_it_waits_for_along() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60", path.display());
        let fiber = spawn(move || shell(&script).status());
        until(|| path.exists());
        let id: u32 = std::fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        fiber.kill();
        assert!(fiber.join().is_err());
        until(|| !is_there(id));
    });
}

#[test]
fn a_child_may_run_as_another_user() {
    run(|| {
        let mut command = Command::new("id");
        command.arg("-u").uid(rustix::process::getuid().as_raw());
        let output = command.gid(rustix::process::getgid().as_raw()).process_group(0).output();
        let expected = format!("{}\n", rustix::process::getuid().as_raw());
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), expected);
        // Only the superuser may choose.
        let mut nobody = Command::new("id");
        match nobody.arg("-u").uid(65534).output() {
            Ok(output) => assert_eq!(output.stdout, b"65534\n"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
    });
}

#[test]
fn fibers_wait_for_signals() {
    run(|| {
        let me = rustix::process::getpid();
        let mut signals = Signals::new(&[Signal::USR2]).unwrap();
        assert_eq!(signals.next_timeout(Duration::ZERO), None);
        rustix::process::kill_process(me, Signal::USR2).unwrap();
        assert_eq!(signals.next_timeout(LONG), Some(Signal::USR2));
        let waiting = spawn(|| signal::wait(&[Signal::WINCH, Signal::USR2]).unwrap());
        yield_now();
        rustix::process::kill_process(me, Signal::WINCH).unwrap();
        assert_eq!(waiting.join().unwrap(), Signal::WINCH);
        assert!(signal::wait(&[Signal::KILL]).is_err());
    });
}

#[test]
fn descriptors_beyond_the_streams() {
    run(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (input, mut feed) = std::io::pipe().unwrap();
        let mut command = shell("cat <&3 >&8");
        command.child_fd(3, input).child_fd(8, writer);
        let mut child = command.spawn().unwrap();
        feed.write_all(b"through").unwrap();
        drop(feed);
        assert!(child.wait().unwrap().success());
        let mut text = String::new();
        // All its writing ends are closed.
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        // A second program has no such descriptors.
        assert!(!command.stderr(Stdio::null()).status().unwrap().success());
    });
}

#[test]
fn a_program_that_is_not_there_is_told_also_with_descriptors() {
    run(|| {
        for number in 3..20 {
            let mut command = Command::new("/no/such/program");
            command.child_fd(number, std::io::pipe().unwrap().0);
            assert_eq!(command.spawn().unwrap_err().kind(), ErrorKind::NotFound);
        }
    });
}

#[test]
fn an_end_is_told_on_the_loop() {
    run(|| {
        let told = std::rc::Rc::new(warren_hub::sync::Queue::unbounded());
        let tell = |child: &warren_hub::process::Child| {
            let told = told.clone();
            child.on_end(move |status| told.put(status.unwrap().code()).unwrap());
        };
        let mut child = shell("exit 3").spawn().unwrap();
        tell(&child);
        assert_eq!(told.get().unwrap(), Some(3));
        // Also when it has ended before, and when nobody keeps the handle.
        child.wait().unwrap();
        tell(&child);
        drop(child);
        assert_eq!(told.get().unwrap(), Some(3));
    });
}
