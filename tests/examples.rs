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
