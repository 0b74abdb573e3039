//! Child processes.

use warren_hub::signal::Signal;
use warren_reactor::{
    ChildFd, ErrorOutput, Failure, ProcessCommand, ProcessError, ProcessProtocol, ProcessReason,
    ProcessTransport, get_process_output, get_process_output_and_value, get_process_value,
    spawn_process,
};

use crate::compared::yes;
use crate::heard::{Heard, soon};

scenarios! { on_hub:
    it_begins_before_spawning_returns
    one_that_reads_and_writes
    one_that_writes_to_both_and_fails
    one_that_is_killed
    signals_after_the_end
    no_such_signal
    its_input_is_closed_once
    it_closes_its_input
    we_close_its_outputs
    we_close_all
    a_grandchild_holds_its_outputs
    more_descriptors
    a_callback_that_fails
    a_beginning_that_fails
    a_terminal
    a_terminal_that_hangs_up
    a_programs_output
    a_programs_complaint_is_a_failure
    a_programs_complaint_as_output
    a_programs_value
    a_programs_output_and_value
    a_program_that_is_killed_has_no_value
}

/// What comes when a child ends has no order.
const ENDING: &[&str] = &["0 lost", "1 lost", "2 lost", "3 lost", "4 lost", "exited", "out", "err"];

#[derive(Default)]
struct Noted {
    heard: Heard,
    fails: bool,
}

impl ProcessProtocol for Noted {
    fn connection_made(&mut self, _transport: &ProcessTransport) {
        self.heard.put("made");
        assert!(!self.fails, "expected by a scenario");
    }

    fn child_data_received(&mut self, _t: &ProcessTransport, child_fd: i32, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        let from = match child_fd {
            1 => "out".to_owned(),
            2 => "err".to_owned(),
            number => number.to_string(),
        };
        self.heard.put(format!("{from} {}", text.trim()));
        assert_ne!(text, "fail\n", "expected by a scenario");
    }

    fn child_connection_lost(&mut self, _transport: &ProcessTransport, child_fd: i32) {
        self.heard.put(format!("{child_fd} lost"));
    }

    fn process_exited(&mut self, reason: &ProcessReason) {
        self.heard.put(match (reason.exit_code(), reason.signal()) {
            (Some(code), _) => format!("exited exit code {code}"),
            (None, signal) => format!("exited signal {}", signal.unwrap()),
        });
    }

    fn process_ended(&mut self, _reason: &ProcessReason) {
        self.heard.put("ended");
    }
}

fn shell(script: &str) -> ProcessCommand {
    ProcessCommand::new("/bin/sh").args(["-c", script])
}

fn start(command: ProcessCommand) -> (ProcessTransport, Heard) {
    let noted = Noted::default();
    let heard = noted.heard.clone();
    (spawn_process(Box::new(noted), command).unwrap(), heard)
}

fn it_begins_before_spawning_returns() {
    let (process, heard) = start(shell("exec cat"));
    heard.put("spawned");
    process.close_stdin();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn one_that_reads_and_writes() {
    let (process, heard) = start(shell("exec cat"));
    process.write(b"hello");
    heard.until("out hello");
    process.close_stdin();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn one_that_writes_to_both_and_fails() {
    let (_process, heard) = start(shell("echo out; echo err >&2; exit 3"));
    heard.until("ended");
    heard.say("child", ENDING);
}

fn one_that_is_killed() {
    let (process, heard) = start(shell("echo ready; exec sleep 1000"));
    heard.until("out ready");
    process.signal_process("TERM").unwrap();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn signals_after_the_end() {
    let (process, heard) = start(shell("exec cat"));
    say!("runs {}", yes(process.pid().is_some()));
    process.close_stdin();
    heard.until("ended");
    say!("runs {}", yes(process.pid().is_some()));
    let error = process.signal_process("TERM").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    say!("has ended already");
}

fn no_such_signal() {
    let (process, heard) = start(shell("exec cat"));
    let error = process.signal_process("NONSENSE").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    say!("no such signal");
    process.close_stdin();
    heard.until("ended");
}

fn its_input_is_closed_once() {
    let (process, heard) = start(shell("exec cat"));
    process.write(b"one");
    process.close_stdin();
    process.close_stdin();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn it_closes_its_input() {
    let (process, heard) = start(shell("exec <&-; echo ready; exec sleep 1000"));
    heard.until("0 lost");
    heard.until("out ready");
    process.write(b"never read");
    process.signal_process(Signal::KILL).unwrap();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn we_close_its_outputs() {
    let (process, heard) = start(shell("trap '' PIPE; echo ready; read x; echo never; exit 5"));
    heard.until("out ready");
    process.close_stdout();
    heard.until("1 lost");
    process.close_stderr();
    heard.until("2 lost");
    process.write(b"\n");
    heard.until("ended");
    heard.say("child", &["0 lost", "exited"]);
}

fn we_close_all() {
    let (process, heard) = start(shell("trap '' PIPE; read x; exit 6"));
    process.write(b"\n");
    process.lose_connection();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn a_grandchild_holds_its_outputs() {
    let (process, heard) = start(shell("sleep 1000 & echo $!; read x; exit 4"));
    let grandchild = heard.take_last("out ").parse().unwrap();
    process.write(b"\n");
    heard.until("exited exit code 4");
    heard.until("0 lost");
    soon();
    heard.put("the grandchild is killed");
    let grandchild = rustix::process::Pid::from_raw(grandchild).unwrap();
    rustix::process::kill_process(grandchild, Signal::KILL).unwrap();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn more_descriptors() {
    let command = shell("cat <&3 >&4; exit 0")
        .child_fd(2, ChildFd::Null)
        .child_fd(3, ChildFd::Write)
        .child_fd(4, ChildFd::Read);
    let (process, heard) = start(command);
    process.write_to_child(3, b"through");
    heard.until("4 through");
    process.close_child_fd(3);
    heard.until("3 lost");
    heard.until("ended");
    heard.say("child", ENDING);
}

fn a_callback_that_fails() {
    let (process, heard) = start(shell("echo fail; read x; echo on >&2"));
    heard.until("1 lost");
    process.write(b"\n");
    heard.until("ended");
    heard.say("child", &["0 lost", "2 lost", "exited", "err"]);
}

fn a_beginning_that_fails() {
    let noted = Noted { fails: true, ..Noted::default() };
    let heard = noted.heard.clone();
    spawn_process(Box::new(noted), shell("exit 0")).unwrap();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn a_terminal() {
    let (process, heard) = start(shell("stty -echo; test -t 1 && echo yes; read x").use_pty(true));
    heard.until("out yes");
    process.close_stdin();
    process.write(b"\n");
    heard.until("ended");
    heard.say("child", ENDING);
}

fn a_terminal_that_hangs_up() {
    let (process, heard) = start(shell("echo ready; exec sleep 1000").use_pty(true));
    heard.until("out ready");
    process.lose_connection();
    heard.until("ended");
    heard.say("child", ENDING);
}

fn a_programs_output() {
    let output = get_process_output(shell("echo out; exit 7"), ErrorOutput::Fails).wait();
    say!("output {}", String::from_utf8(output.unwrap()).unwrap().trim());
}

fn a_programs_complaint_is_a_failure() {
    let script = "echo out; echo err >&2; sleep 1";
    let failure = get_process_output(shell(script), ErrorOutput::Fails).wait().unwrap_err();
    say!("failed {}", yes(failure.to_string().contains("err")));
}

fn a_programs_complaint_as_output() {
    let output = get_process_output(shell("echo out; echo err >&2"), ErrorOutput::Joins).wait();
    let output = String::from_utf8(output.unwrap()).unwrap();
    let mut words: Vec<&str> = output.split_whitespace().collect();
    words.sort_unstable();
    say!("output {}", crate::compared::list(words));
}

fn a_programs_value() {
    say!("value {}", get_process_value(shell("echo out; exit 7")).wait().unwrap());
}

fn a_programs_output_and_value() {
    let output = get_process_output_and_value(shell("cat; echo err >&2; exit 2"), "in").wait();
    let output = output.unwrap();
    let [out, err] = [output.out, output.err].map(|bytes| String::from_utf8(bytes).unwrap());
    say!("out {out} err {} value {}", err.trim(), output.code);
}

fn a_program_that_is_killed_has_no_value() {
    let script = "printf half; kill -TERM $$";
    match get_process_output_and_value(shell(script), "").wait() {
        Err(Failure::Error(ProcessError::Ended { out, reason, .. })) => {
            say!("out {} signal {}", String::from_utf8_lossy(&out), reason.signal().unwrap());
        }
        other => panic!("{other:?}"),
    }
}
