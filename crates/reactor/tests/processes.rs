//! Child processes, as callbacks.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::signal::Signal;
use warren_hub::sync::Queue;
use warren_hub::{offload, run, sleep};
use warren_reactor::{
    ChildFd, Consumer, ErrorOutput, Failure, ProcessCommand, ProcessError, ProcessProtocol,
    ProcessReason, ProcessTransport, Producer, get_process_output, get_process_output_and_value,
    get_process_value, spawn_process,
};

type Log = Rc<Queue<String>>;

/// Notes everything. Data that is `panic` panics.
struct Noted(Log);

impl Noted {
    fn put(&self, text: impl Into<String>) {
        self.0.put(text.into()).unwrap();
    }
}

impl ProcessProtocol for Noted {
    fn connection_made(&mut self, transport: &ProcessTransport) {
        assert!(transport.pid().is_some());
        self.put("made");
    }

    fn child_data_received(&mut self, t: &ProcessTransport, child_fd: i32, data: &[u8]) {
        match child_fd {
            1 => self.out_received(t, data),
            2 => self.err_received(t, data),
            _ => self.put(format!("{child_fd}: {}", String::from_utf8_lossy(data))),
        }
    }

    fn out_received(&mut self, _t: &ProcessTransport, data: &[u8]) {
        assert_ne!(data, b"panic");
        self.put(format!("out: {}", String::from_utf8_lossy(data)));
    }

    fn err_received(&mut self, _t: &ProcessTransport, data: &[u8]) {
        self.put(format!("err: {}", String::from_utf8_lossy(data)));
    }

    fn child_connection_lost(&mut self, _t: &ProcessTransport, child_fd: i32) {
        self.put(format!("{child_fd} lost"));
    }

    fn pause_producing(&mut self, _t: &ProcessTransport, child_fd: i32) {
        self.put(format!("{child_fd} full"));
    }

    fn resume_producing(&mut self, _t: &ProcessTransport, child_fd: i32) {
        self.put(format!("{child_fd} has room"));
    }

    fn process_exited(&mut self, reason: &ProcessReason) {
        self.put(format!("exited: {reason}"));
    }

    fn process_ended(&mut self, reason: &ProcessReason) {
        self.put(format!("ended: {reason}"));
    }
}

fn shell(script: &str) -> ProcessCommand {
    ProcessCommand::new("sh").args(["-c", script])
}

fn spawn(command: ProcessCommand) -> (ProcessTransport, Log) {
    let log = Log::new(Queue::unbounded());
    let transport = spawn_process(Box::new(Noted(log.clone())), command).unwrap();
    // Before the call returns, as in Twisted.
    assert_eq!(log.try_get().unwrap(), "made");
    (transport, log)
}

#[track_caller]
fn next(log: &Log) -> String {
    log.get_timeout(Duration::from_secs(30)).expect("something more is told")
}

/// What is told up to the end, without it.
#[track_caller]
fn all(log: &Log) -> (Vec<String>, String) {
    let mut told = Vec::new();
    loop {
        let one = next(log);
        if let Some(reason) = one.strip_prefix("ended: ") {
            assert!(log.is_empty(), "the last word");
            return (told, reason.to_owned());
        }
        told.push(one);
    }
}

#[track_caller]
fn all_sorted(log: &Log) -> (Vec<String>, String) {
    let (mut told, reason) = all(log);
    told.sort();
    (told, reason)
}

const DONE: &str = "the process has ended with exit code 0";

#[test]
fn a_conversation_ends_when_all_is_closed() {
    run(|| {
        let (transport, log) = spawn(ProcessCommand::new("cat"));
        let pid = transport.pid().unwrap();
        transport.write(b"hello");
        assert_eq!(next(&log), "out: hello");
        transport.write_sequence(["once", " ", "more"]);
        assert_eq!(next(&log), "out: once more");
        transport.close_stdin();
        assert_eq!(next(&log), "0 lost");
        let (told, reason) = all_sorted(&log);
        assert_eq!(reason, DONE);
        assert_eq!(told, ["1 lost", "2 lost", &format!("exited: {DONE}")]);
        assert_eq!(transport.pid(), None);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "reaped");
        // Nothing of this does anything.
        transport.write(b"x");
        transport.close_stdin();
        transport.lose_connection();
        let error = transport.signal_process("TERM").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        sleep(Duration::from_millis(2));
        assert!(log.is_empty());
    });
}

#[test]
fn exit_codes_and_both_outputs_are_told() {
    run(|| {
        let (_transport, log) = spawn(shell("printf out; printf err >&2; exit 3"));
        let (told, reason) = all_sorted(&log);
        assert_eq!(reason, "the process has ended with exit code 3");
        let exited = format!("exited: {reason}");
        // Its standard input is found to be closed, although nothing was written.
        assert_eq!(told, ["0 lost", "1 lost", "2 lost", "err: err", &exited, "out: out"]);
    });
}

#[test]
fn what_was_written_last_comes_before_the_end() {
    run(|| {
        for bytes in [1usize, 65_536, 1_000_000] {
            let (_transport, log) = spawn(shell(&format!("head -c {bytes} /dev/zero")));
            let (told, reason) = all(&log);
            assert_eq!(reason, DONE);
            let out = told.iter().filter_map(|told| told.strip_prefix("out: "));
            assert_eq!(out.map(str::len).sum::<usize>(), bytes);
            let lost = told.iter().position(|told| told == "1 lost").unwrap();
            assert!(!told[lost..].iter().any(|told| told.starts_with("out")));
        }
    });
}

#[test]
fn signals_end_a_child_in_the_middle() {
    run(|| {
        for signal in ["TERM", "SIGTERM"] {
            let (transport, log) = spawn(shell("echo ready; exec sleep 1000"));
            assert_eq!(next(&log), "out: ready\n");
            transport.signal_process(signal).unwrap();
            let (_, reason) = all(&log);
            assert!(reason.contains("ended by signal 15"), "{reason}");
        }
        let (transport, log) = spawn(ProcessCommand::new("cat").arg("-"));
        transport.write(&vec![b'x'; 4_000_000]);
        next(&log);
        transport.signal_process(Signal::KILL).unwrap();
        let (_, reason) = all(&log);
        assert!(reason.contains("ended by signal 9"), "{reason}");
        assert!(transport.signal_process("NONSENSE").unwrap_err().to_string().contains("NONSENSE"));
    });
}

#[test]
fn a_child_that_does_not_read_holds_the_writer_back() {
    run(|| {
        let (transport, log) = spawn(shell("exec sleep 1000"));
        let stdin = transport.child_pipe(0).unwrap();
        transport.write(&vec![b'x'; 1_000_000]);
        assert_eq!(next(&log), "0 full");
        assert!(stdin.is_full() && stdin.buffered() > 800_000);
        // It waits for the child to read, for as long as that takes.
        transport.close_stdin();
        sleep(Duration::from_millis(5));
        assert!(log.is_empty());
        transport.signal_process("KILL").unwrap();
        let (told, _) = all(&log);
        assert!(told.contains(&"0 lost".into()), "{told:?}");

        let (transport, log) = spawn(shell("sleep 0.05; exec wc -c"));
        transport.write(&vec![b'x'; 1_000_000]);
        assert_eq!(next(&log), "0 full");
        assert_eq!(next(&log), "0 has room");
        transport.close_stdin();
        let (told, reason) = all(&log);
        assert!(told.contains(&"out: 1000000\n".into()), "{told:?}");
        assert_eq!(reason, DONE);
    });
}

#[test]
fn a_producer_of_input_and_a_pause_of_output() {
    /// Writes numbers, a line each time it is asked.
    struct Numbers(ProcessTransport, std::cell::Cell<u32>);
    impl Producer for Numbers {
        fn resume_producing(&self) {
            self.1.set(self.1.get() + 1);
            self.0.write(format!("{}\n", self.1.get()).as_bytes());
            if self.1.get() == 1000 {
                self.0.unregister_producer();
                self.0.close_stdin();
            }
        }
        fn stop_producing(&self) {}
    }
    run(|| {
        let (transport, log) = spawn(ProcessCommand::new("tail").args(["-n", "1"]));
        let numbers = Rc::new(Numbers(transport.clone(), std::cell::Cell::new(0)));
        transport.register_producer(numbers, false);
        let (told, reason) = all(&log);
        assert!(told.contains(&"out: 1000\n".into()), "{told:?}");
        assert_eq!(reason, DONE);

        let (transport, log) = spawn(shell("head -c 200000 /dev/zero; echo >&2"));
        transport.pause_producing();
        sleep(Duration::from_millis(20));
        assert!(log.is_empty());
        assert!(transport.pid().is_some(), "the child is held back");
        transport.resume_producing();
        assert_eq!(all(&log).1, DONE);
        // A child that is gone takes no producer.
        transport.register_producer(Rc::new(transport.clone()), true);
    });
}

#[test]
fn pipes_held_by_grandchildren_delay_the_end_only() {
    run(|| {
        let (transport, log) = spawn(shell("sleep 1000 & echo $!; read x; exit 4"));
        let out = next(&log);
        transport.write(b"\n");
        let grandchild: i32 = out.strip_prefix("out: ").unwrap().trim().parse().unwrap();
        let reason = "the process has ended with exit code 4";
        let mut told = [next(&log), next(&log)];
        told.sort();
        // `sleep` has the child's standard output, but not its input, which `sh` gives to no job in the background.
        assert_eq!(told, ["0 lost", &format!("exited: {reason}")]);
        sleep(Duration::from_millis(5));
        assert!(log.is_empty(), "not yet");
        let pid = rustix::process::Pid::from_raw(grandchild).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        assert_eq!(all_sorted(&log), (vec!["1 lost".into(), "2 lost".into()], reason.into()));
    });
}

#[test]
fn outputs_that_we_close_are_told_as_lost() {
    run(|| {
        let (transport, log) = spawn(shell("trap '' PIPE; read x; echo x; exit 5"));
        transport.close_stdout();
        assert_eq!(next(&log), "1 lost");
        transport.close_stderr();
        assert_eq!(next(&log), "2 lost");
        transport.write(b"go on\n");
        let (_, reason) = all(&log);
        assert_eq!(reason, "the process has ended with exit code 5");
        let (transport, log) = spawn(ProcessCommand::new("cat"));
        transport.write(b"first");
        transport.lose_connection();
        assert_eq!(all_sorted(&log).0[..3], ["0 lost", "1 lost", "2 lost"]);
    });
}

#[test]
fn a_callback_that_panics_loses_its_pipe_only() {
    run(|| {
        let (transport, log) = spawn(shell("printf panic; read x; echo on >&2"));
        assert_eq!(next(&log), "1 lost");
        transport.write(b"\n");
        let (told, reason) = all(&log);
        assert!(told.contains(&"err: on\n".into()), "{told:?}");
        assert_eq!(reason, DONE);
    });
}

#[test]
fn more_descriptors_go_both_ways() {
    run(|| {
        let command = shell("cat <&3 >&7; echo end >&4")
            .child_fd(3, ChildFd::Write)
            .child_fd(7, ChildFd::Read)
            .child_fd(4, ChildFd::Read)
            .child_fd(0, ChildFd::Null)
            .child_fd(2, ChildFd::Inherit(std::io::stderr().try_clone_to_owned()));
        let (transport, log) = spawn(command);
        transport.write_to_child(3, b"through");
        // There is no such pipe.
        transport.write(b"nowhere");
        transport.write_to_child(9, b"nowhere");
        assert_eq!(next(&log), "7: through");
        transport.close_child_fd(3);
        let (told, reason) = all_sorted(&log);
        let exited = format!("exited: {DONE}");
        assert_eq!(told, ["1 lost", "3 lost", "4 lost", "4: end\n", "7 lost", &exited]);
        assert_eq!(reason, DONE);
        // What every child has, and the one it was given.
        let list = "ls /proc/self/fd";
        let plain = std::process::Command::new("sh").args(["-c", list]).output().unwrap().stdout;
        let command = shell(list).child_fd(5, ChildFd::Null);
        let given = get_process_output(command, ErrorOutput::Fails).wait().unwrap();
        let numbers = |text: Vec<u8>| -> std::collections::BTreeSet<i32> {
            String::from_utf8(text).unwrap().lines().map(|line| line.parse().unwrap()).collect()
        };
        let more: Vec<i32> = numbers(given).difference(&numbers(plain)).copied().collect();
        assert_eq!(more, [5]);
    });
}

trait TryClone {
    fn try_clone_to_owned(&self) -> std::os::fd::OwnedFd;
}

impl<T: std::os::fd::AsFd> TryClone for T {
    fn try_clone_to_owned(&self) -> std::os::fd::OwnedFd {
        self.as_fd().try_clone_to_owned().unwrap()
    }
}

#[test]
fn what_cannot_be_started_is_said() {
    run(|| {
        let log = Log::new(Queue::unbounded());
        let program = || ProcessCommand::new("no-such-program");
        // Also with a descriptor under the number that the system would give to what reports the error.
        let commands =
            [program(), program().child_fd(3, ChildFd::Read).child_fd(4, ChildFd::Write)];
        for command in commands {
            let error = spawn_process(Box::new(Noted(log.clone())), command).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("no-such-program"), "{error}");
        }
        assert!(log.is_empty(), "the protocol is not told");
        let failed = get_process_value(program()).wait().unwrap_err();
        assert!(matches!(failed, Failure::Error(ProcessError::Spawn(_))), "{failed:?}");
    });
}

#[test]
fn environment_folder_and_name() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let command = ProcessCommand::new("/bin/sh")
            .arg0("named")
            .args(["-c", "echo $0 $A $HOME; pwd"])
            .env_clear()
            .env("A", "a")
            .path(folder.path());
        let out = get_process_output(command, ErrorOutput::Fails).wait().unwrap();
        let at = folder.path().canonicalize().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("named a\n{}\n", at.display()));
    });
}

#[test]
fn another_user_for_root() {
    run(|| {
        if !rustix::process::getuid().is_root() {
            return eprintln!("only root starts programs as somebody else: not tested");
        }
        let command = shell("id -u; id -g; id -G").uid(65_534).gid(65_533);
        let out = get_process_output(command, ErrorOutput::Fails).wait().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "65534\n65533\n65533\n");
    });
}

#[test]
fn a_terminal_of_its_own() {
    run(|| {
        let (transport, log) =
            spawn(shell("test -t 0 && tty && read x && echo got $x").use_pty(true));
        let mut text = String::new();
        while !text.contains('\n') {
            text += next(&log).strip_prefix("out: ").unwrap();
        }
        assert!(text.contains("/dev/pts/"), "{text}");
        // There is one way only.
        transport.close_stdin();
        transport.write(b"it\n");
        let (told, reason) = all(&log);
        let text: String = told.iter().filter_map(|told| told.strip_prefix("out: ")).collect();
        assert!(text.contains("got it\r\n"), "{told:?}");
        assert!(!told.iter().any(|told| told.ends_with(" lost")), "as in Twisted: {told:?}");
        assert_eq!(reason, DONE);

        let (transport, log) = spawn(shell("echo ready; exec sleep 1000").use_pty(true));
        assert!(next(&log).starts_with("out: ready"));
        // Control-C: the terminal is the child's own.
        transport.write(b"\x03");
        let (_, reason) = all(&log);
        assert!(reason.contains("signal 2"), "{reason}");

        let (transport, log) = spawn(shell("echo ready; exec sleep 1000").use_pty(true));
        assert!(next(&log).starts_with("out: ready"));
        transport.lose_connection();
        let (_, reason) = all(&log);
        assert!(reason.contains("signal 1"), "a hang-up: {reason}");
    });
}

#[test]
fn outputs_and_values_are_collected() {
    run(|| {
        let out = get_process_output(shell("echo out; exit 7"), ErrorOutput::Fails).wait();
        assert_eq!(out.unwrap(), b"out\n", "whatever its exit code");
        let out = get_process_output(shell("echo out; echo err >&2"), ErrorOutput::Joins).wait();
        assert_eq!(out.unwrap().len(), 8);
        let complaint =
            get_process_output(shell("echo complaint >&2; sleep 0.1"), ErrorOutput::Fails);
        let failed = complaint.wait().unwrap_err();
        assert!(failed.to_string().contains("complaint"), "{failed}");
        assert_eq!(get_process_value(shell("exit 7")).wait().unwrap(), 7);
        let signalled = get_process_value(shell("kill -KILL $$")).wait().unwrap_err();
        assert!(signalled.to_string().contains("signal 9"), "{signalled}");
        let output =
            get_process_output_and_value(shell("cat; echo err >&2; exit 2"), "hello").wait();
        let output = output.unwrap();
        assert_eq!(
            (&output.out[..], &output.err[..], output.code),
            (&b"hello"[..], &b"err\n"[..], 2)
        );
        let killed = get_process_output_and_value(shell("printf half; kill -TERM $$"), "").wait();
        match killed {
            Err(Failure::Error(ProcessError::Ended { out, reason, .. })) => {
                assert_eq!((&out[..], reason.signal()), (&b"half"[..], Some(15)));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_program_is_killed_when_nobody_waits_any_more() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 1000", path.display());
        let value = get_process_value(shell(&script));
        let pid = loop {
            match std::fs::read_to_string(&path) {
                Ok(pid) if pid.ends_with('\n') => break pid,
                _ => sleep(Duration::from_millis(1)),
            }
        };
        value.cancel();
        let failed = value.wait().unwrap_err();
        assert!(matches!(failed, Failure::Cancelled), "{failed:?}");
        let process = format!("/proc/{}", pid.trim());
        while Path::new(&process).exists() {
            sleep(Duration::from_millis(1));
        }
        let value = get_process_value(shell("exec sleep 1000"));
        let failed = value.add_timeout(Duration::from_millis(1)).wait().unwrap_err();
        assert!(matches!(failed, Failure::TimedOut(_)), "{failed:?}");
    });
}

#[test]
fn many_children_at_once() {
    run(|| {
        let values: Vec<_> =
            (0..60).map(|n| get_process_value(shell(&format!("exit {n}")))).collect();
        for (n, value) in values.into_iter().enumerate() {
            assert_eq!(value.wait().unwrap(), n as i32);
        }
    });
}

#[test]
fn a_simulation_has_no_processes() {
    warren_hub::sim::check(0..1, |_world| {
        let log = Log::new(Queue::unbounded());
        let refused = spawn_process(Box::new(Noted(log)), shell("exec sleep 1000"));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    });
}

/// A file as one of its streams.
#[test]
fn a_file_is_a_stream_too() {
    run(|| {
        let mut file = tempfile::tempfile().unwrap();
        let command =
            shell("echo to the file").child_fd(1, ChildFd::Inherit(file.try_clone_to_owned()));
        let (_transport, log) = spawn(command);
        assert_eq!(all(&log).1, DONE);
        let text = offload(move || {
            use std::io::Seek;
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            file.flush().unwrap();
            text
        });
        assert_eq!(text, "to the file\n");
    });
}
