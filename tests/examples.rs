//! The examples that need no broker, run as programs.

mod support;

use support::{Program, example};

fn output(name: &str, arguments: &[&str]) -> String {
    let output = example(name).args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn generator() {
    assert_eq!(output("generator", &["8"]), "0\n1\n1\n2\n3\n5\n8\n13\n");
}

#[test]
fn ping_pong() {
    let expected = "ping 0\npong 1\nping 2\npong 3\nping 4\npong 5\nthe ball was hit 6 times\n";
    assert_eq!(output("ping_pong", &[]), expected);
}

#[test]
fn foo_bar() {
    let expected = "Running in foo\nExplicit context to bar\nExplicit context switch to foo again\n\
                    Implicit context switch back to bar\n";
    assert_eq!(output("foo_bar", &[]), expected);
}

#[test]
fn sync_async() {
    let text = output("sync_async", &[]);
    assert_eq!(text.matches(" done").count(), 20);
    let took = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} took"))).unwrap();
        line.split(' ').nth(2).unwrap().parse().unwrap()
    };
    // Ten waits of 10 ms or more, one after the other; at once they take about one of them.
    assert!(took("Synchronous") >= 100, "{text}");
    assert!(took("Asynchronous") < took("Synchronous"), "{text}");
}

#[test]
fn simulation() {
    let text = output("simulation", &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("seed ") && lines[0].contains("20 requests count as "), "{text}");
    assert_eq!(lines[2], "the careful counter is right with 200 seeds");
    assert_eq!(text, output("simulation", &[]), "the same each time");
}

#[test]
fn fetches() {
    let text = output("fetches", &[]);
    for n in 0..5 {
        assert!(text.contains(&format!("the page /{n}\n")), "{text}");
    }
    let took: u64 = text.trim_end().rsplit(' ').nth(1).unwrap().parse().unwrap();
    assert!((100..500).contains(&took), "five pages of 100 ms each overlap: {text}");
}

#[test]
fn patched() {
    let text = output("patched", &[]);
    for n in 0..5 {
        assert!(text.contains(&format!("the page /{n}\n")), "{text}");
    }
    let took: u64 = text.trim_end().rsplit(' ').nth(1).unwrap().parse().unwrap();
    assert!((100..500).contains(&took), "five pages of 100 ms each overlap: {text}");
}

#[test]
fn echo() {
    let server = Program::start(example("echo_server").arg("127.0.0.1:0"));
    let line = server.line();
    let addr = line.strip_prefix("listening on ").unwrap();
    assert_eq!(output("echo_client", &[addr, "200"]), "200 of 200 lines came back\n");
}

#[test]
fn selectors() {
    let server = Program::start(example("selectors_server").arg("127.0.0.1:0"));
    let line = server.line();
    let addr = line.strip_prefix("listening on ").unwrap();
    let expected = "300 clients at once have had 13200 bytes back\n";
    assert_eq!(output("selectors_client", &[addr, "300"]), expected);
}

#[test]
fn stream_server() {
    use std::io::{BufRead, BufReader, Write};

    let server = Program::start(example("stream_server").arg("127.0.0.1:0"));
    let line = server.line();
    let addr = line.strip_prefix("Starting echo server on ").unwrap();
    let mut client = std::net::TcpStream::connect(addr).unwrap();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "Welcome to the echo server! Type quit to exit.");
    client.write_all(b"hello\nonce more\nquit\n").unwrap();
    assert_eq!(lines.by_ref().collect::<Vec<_>>(), ["hello", "once more"]);
    assert!(server.line().starts_with("New connection from 127.0.0.1:"));
    server.expect(&["echoed hello", "echoed once more", "client quit"]);
}

#[test]
fn task_timeline() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("timeline.svg");
    let text = output("task_timeline", &[file.to_str().unwrap()]);
    // The numbers of a line: total, longest task, worked, at once, waited, at once.
    let numbers = |way: &str| -> Vec<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(way)).unwrap();
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let single = numbers("single-threaded:");
    let [total, longest, worked, running, waited, waiting] = single[..] else { panic!("{text}") };
    assert_eq!((running, waiting), (1, 1), "{text}");
    // Whole milliseconds are rounded down.
    assert!(worked + waited <= total + 2 && longest < total, "{text}");
    for way in ["multi-threaded:", "event-driven, protocols:", "event-driven, fibers:"] {
        let [total, longest, _, running, waited, waiting] = numbers(way)[..] else {
            panic!("{text}")
        };
        assert_eq!(waiting, 3, "{text}");
        assert!(way.starts_with("multi") || running == 1, "{text}");
        // However slow the machine is: the whole is no sum, for what delays it delays all that wait.
        assert!(total < waited && longest <= total && total < 2 * longest, "{text}");
    }
    let picture = std::fs::read_to_string(file).unwrap();
    let colors = ["#D95F02", "#1F5FA8", "#4D9A4D"].map(|color| picture.matches(color).count());
    // In each of four runs a name, and three times running and twice waiting.
    assert_eq!(colors, [4 * 6; 3]);
    check_well_formed(&picture);
}

/// Every element of an XML text is closed, in the order of nesting, and there is one root.
fn check_well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut roots = 0;
    for tag in xml.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else {
            roots += usize::from(open.is_empty());
            open.extend((!tag.ends_with('/')).then_some(name));
        }
    }
    assert_eq!((open.len(), roots), (0, 1), "{open:?}");
}

#[test]
fn udp_time() {
    let server = Program::start(example("udp_time_server").arg("127.0.0.1:0"));
    let line = server.line();
    let addr = line.strip_prefix("listening on ").unwrap();
    let time = output("udp_time_client", &[addr]);
    assert!(time.ends_with(" UTC (asked once)\n"), "{time}");
    // The day may have ended between the two.
    let today = || std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]).output().unwrap();
    let today = String::from_utf8(today().stdout).unwrap();
    let told = &time[..10];
    assert!(told == today.trim() || time[11..].starts_with("23:59"), "{time} is not {today}");
    assert!(server.line().starts_with("told 127.0.0.1:"));

    // Nobody is there, as the port that was bound a moment ago.
    drop(server);
    let failed = example("udp_time_client").args([addr, "20"]).output().unwrap();
    let text = String::from_utf8(failed.stderr).unwrap();
    assert!(!failed.status.success());
    assert!(text.contains(&format!("{addr} has refused")), "{text}");
    assert!(text.contains("start udp_time_server there"), "{text}");

    // Somebody is, and says nothing.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let failed = example("udp_time_client").args([&addr, "20"]).output().unwrap();
    let text = String::from_utf8(failed.stderr).unwrap();
    assert!(!failed.status.success());
    assert!(text.starts_with(&format!("no answer from {addr} to 3 questions in ")), "{text}");

    // The answer to somebody else's question, then none, then the right one.
    let late = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    late.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let addr = late.local_addr().unwrap().to_string();
    let client = std::thread::spawn(move || output("udp_time_client", &[&addr, "1000"]));
    let mut question = [0; 20];
    let (_, from) = late.recv_from(&mut question).unwrap();
    late.send_to(&[7; 20], from).unwrap();
    late.recv(&mut question).unwrap();
    question[8..16].copy_from_slice(&951_782_400u64.to_be_bytes());
    question[16..].copy_from_slice(&5_000_000u32.to_be_bytes());
    late.send_to(&question, from).unwrap();
    assert_eq!(client.join().unwrap(), "2000-02-29 00:00:00.005 UTC (asked 2 times)\n");
}

#[test]
fn standard_io() {
    use std::io::{Read, Write};
    use std::process::Stdio;

    let mut folder = std::env::temp_dir();
    folder.push(format!("warren standard_io {}", std::process::id()));
    std::fs::write(&folder, "one\ntwo\nquit\nnot read\n").unwrap();
    let from = std::fs::File::open(&folder).unwrap();
    let ended = example("standard_io").stdin(from).output().unwrap();
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "say something\neno\nowt\ntiuq\n");
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "3 lines, then it was closed here\n");

    let mut program = example("standard_io");
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = [0; 14];
    stdout.read_exact(&mut said).unwrap();
    stdin.write_all(b"abc\n").unwrap();
    let mut answer = [0; 4];
    stdout.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"cba\n");
    drop(stdin);
    let ended = child.wait_with_output().unwrap();
    let text = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(text, "1 lines, then it was closed by the peer\n");

    let nothing = example("standard_io").stdin(Stdio::null()).output().unwrap();
    assert_eq!(nothing.stdout, b"say something\n");
}

#[test]
fn event_queue() {
    let text = output("event_queue", &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["click at 3, 4", "the first click", "click number 1"]);
    assert_eq!(lines[3..6], ["click at 5, 6", "click number 2", "click at 7, 8"]);
    assert_eq!(lines[8..10], ["x is not for the others", "1 handlers were called, 0 failed"]);
    assert_eq!(lines[11], "failure: handler 6 of on_key_down failed: e is for error");
    assert_eq!(lines[14], "failure: handler 6 of on_key_down panicked: p is for panic");
    assert_eq!(lines[16..21], ["2 events wait", "3", "click at 0, 0", "2", "1"]);
    assert_eq!(lines[21..23], ["lift-off", "5 events were run"]);
    assert!(lines[23].starts_with("the event on_click was not posted: 3 events wait"), "{text}");
    assert!(lines[24].ends_with("use another name, or the same type"), "{text}");
}
