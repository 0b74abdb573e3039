//! `warren perf`, against our broker or the one that the environment names.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use support::{Broker, Program, Server, warren};

/// `warren perf` with these arguments, separated by spaces.
fn perf(url: &str, arguments: &str) -> Command {
    let mut command = warren();
    command.arg("perf").args(arguments.split_whitespace());
    command.env("WARREN_URL", url).stdin(Stdio::null());
    command
}

fn output(url: &str, arguments: &str) -> Output {
    perf(url, arguments).output().unwrap()
}

/// The report of a run that ends with this code.
#[track_caller]
fn report(url: &str, arguments: &str, code: i32) -> Value {
    let output = output(url, &format!("{arguments} --interval 0 --output-file -"));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn check(report: &Value, fields: &[(&str, u64)]) {
    for &(name, count) in fields {
        assert_eq!(report[name], count, "{name} in {report}");
    }
}

#[test]
fn everything_published_is_confirmed_and_consumed() {
    let broker = Broker::get();
    let flow = "--id perf-flow -x 2 -y 3 -X 2 -Y 2 -C 3000 -s 16-5000 -f persistent";
    let report = report(&broker.url, &format!("{flow} -c 100 -q 60 -A 20"), 0);
    check(&report, &[("published", 6000), ("confirmed", 6000), ("consumed", 6000), ("nacked", 0)]);
    for latency in ["confirm_latency", "deliver_latency"] {
        let at = |name: &str| report[latency][name].as_f64().unwrap();
        assert!(0.0 < at("min_us") && at("min_us") <= at("p50_us"));
        assert!(at("p50_us") <= at("p99_us") && at("p99_us") <= at("max_us"));
    }
    // The server is on this machine, and is seen. What it has used in so short a time may be less than the system counts.
    if std::env::var_os("WARREN_TEST_AMQP_URL").is_none() {
        assert!(0 < report["server"]["pid"].as_u64().unwrap(), "{report}");
        assert!(0.0 <= report["server"]["cpu_seconds"].as_f64().unwrap(), "{report}");
    }
}

#[test]
fn without_acknowledgements_and_with_polling_and_transactions() {
    let broker = Broker::get();
    for (id, how) in [
        ("perf-auto", "-C 2000 -a"),
        ("perf-backlog", "-C 2000 -a --backlog-max 100"),
        ("perf-polling", "-C 200 --polling"),
        ("perf-polling-auto", "-C 200 --polling -a -Y 2"),
        ("perf-global", "-C 2000 -Q 10 -A 10"),
        ("perf-tiny", "-C 2000 -s 0-3 -q 50"),
        ("perf-frames", "-C 50 -s 100000 -M 4096 -q 10"),
        ("perf-slow", "-C 20 --consumer-latency 1000"),
        ("perf-rate", "-C 50 --consumer-rate 500"),
    ] {
        let count: u64 = how.split_whitespace().nth(1).unwrap().parse().unwrap();
        let report = report(&broker.url, &format!("--id {id} {how}"), 0);
        check(&report, &[("published", count), ("consumed", count), ("returned", 0)]);
    }
    let report = report(&broker.url, "--id perf-tx -C 1005 -m 10 -X 2 -f persistent -q 10", 0);
    check(&report, &[("published", 1005), ("confirmed", 1005), ("consumed", 1005)]);
}

#[test]
fn what_perftest_can_do_too() {
    let broker = Broker::get();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (short, long) = (file("short", "12345"), file("long", "1234567890"));
    let names = file("names", "perf-named-1\n\nperf-named-2\n");
    for (how, published, consumed) in [
        (format!("--id perf-bodies -B {short},{long} -T text/plain -C 30"), 30, 30),
        ("--id perf-sizes -vs 16:0.01,100:0.01 -C 300".into(), 300, 300),
        ("--id perf-latencies -vl 0:0.01,100:0.01 -C 100".into(), 100, 100),
        ("--id perf-begins -csd 0.05 -C 100 --use-millis".into(), 100, 100),
        ("--id perf-spread -prsd 0.05 -x 3 -C 10".into(), 30, 30),
        ("--id perf-interval -P 0.001 -C 10".into(), 10, 10),
        (format!("-qf {names} -x 2 -y 2 -C 10"), 20, 20),
        ("--id perf-idle -C 10 -D 100 -ew idle".into(), 10, 10),
        ("--id perf-empty -C 10 -D 100 --exit-when empty -a".into(), 10, 10),
        ("--id perf-nack -C 10 -na -re false".into(), 10, 10),
        ("--id perf-stream -sq -q 10 -C 10 -sco first".into(), 10, 10),
    ] {
        let report = report(&broker.url, &how, 0);
        check(&report, &[("published", published), ("consumed", consumed)]);
    }
    // They come again and again.
    let requeued = report(&broker.url, "--id perf-requeued -C 10 --nack -D 100", 0);
    check(&requeued, &[("published", 10), ("consumed", 100), ("redelivered", 90)]);
    let bytes = report(&broker.url, &format!("--id perf-bytes -B {short},{long} -C 4"), 0);
    assert_eq!(bytes["deliver_latency"], Value::Null, "{bytes}");
}

#[test]
fn exchanges_bindings_and_patterns() {
    let broker = Broker::get();
    let four = "--queue-pattern perf-p-%d --queue-pattern-from 1 --queue-pattern-to 4";
    for (how, published, consumed) in [
        // Two producers for two queues each; one consumer for all of them.
        (format!("{four} -x 2 -C 100"), 200, 200),
        (format!("{four} -t fanout -e perf-fanout -C 100 -y 4"), 100, 400),
        (format!("{four} -t topic -e perf-topic -k a.b -C 100"), 100, 400),
        ("-u perf-keys -e perf-keys-topic -t topic -K -C 100".into(), 100, 100),
        ("-u perf-direct -e amq.direct -C 100".into(), 100, 100),
        (
            "-u perf-headers -e amq.headers -t headers -C 100 --message-properties a=1,priority=3"
                .into(),
            100,
            100,
        ),
    ] {
        let report = report(&broker.url, &format!("{how} -q 50"), 0);
        check(&report, &[("published", published), ("consumed", consumed)]);
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let broker = Broker::get();
    let report = report(&broker.url, "--id perf-open -x 2 -r 500 -z 1 -a --warm-up 0.2", 0);
    let rate = report["publish_rate"].as_f64().unwrap();
    assert!((500.0..1100.0).contains(&rate), "{report}");
    let ramp = report_of_ramp(&broker.url);
    // Half of what the full rate would have sent.
    assert!((100..=600).contains(&ramp), "{ramp}");
}

fn report_of_ramp(url: &str) -> u64 {
    report(url, "--id perf-ramp -r 1000 --ramp 1 -z 1 -a", 0)["published"].as_u64().unwrap()
}

#[test]
fn what_is_refused_or_returned_or_wrong_has_an_exit_code() {
    let broker = Broker::get();
    let url = &broker.url;
    let unbound = "-u perf-unbound -e perf-unbound-x -t direct --skip-binding-queues -f mandatory";
    let returned = report(url, &format!("{unbound} -C 10 -c 5 -D 1 --shutdown-timeout 0.2"), 4);
    check(&returned, &[("returned", 10), ("confirmed", 10), ("consumed", 0)]);
    let full = "-u perf-full --queue-args x-max-length=1,x-overflow=reject-publish -y 0 -c 10 -C 5";
    let refused = report(url, full, 4);
    check(&refused, &[("confirmed", 1), ("nacked", 4)]);
    for (arguments, code, says) in [
        ("-p -u perf-no-such-queue -y 1 -x 0", 1, "404"),
        ("--uri amqp://127.0.0.1:1", 1, "cannot connect to 127.0.0.1:1"),
        ("-A 100 -q 10", 1, "--multi-ack-every 100 is more than the prefetch of 10"),
        ("--uri amqp://127.0.0.1:1 -sst 0.1", 1, "cannot connect to 127.0.0.1:1"),
        ("-qf /no/such/file", 1, "cannot read --queue-file /no/such/file"),
        ("-vs 5", 2, "write NUMBER:SECONDS"),
        ("-P 0", 2, "more than 0"),
        ("--verify -a", 2, "cannot be used with"),
        ("--verify -s 10", 1, "--verify needs bodies of at least 32 bytes"),
        ("-r 0", 2, "more than 0"),
        ("-x 0 -y 0", 1, "nothing to do"),
    ] {
        let output = output(url, arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {error}");
        assert!(error.contains(says), "{arguments}: {error}");
    }
}

#[test]
fn an_interrupt_ends_a_run_with_its_report() {
    let broker = Broker::get();
    let mut program = Program::start(&mut perf(&broker.url, "--id perf-ended -a -r 100 -i 0.1"));
    assert!(program.line().contains("sent"));
    program.signal(Signal::INT);
    while !program.line().starts_with("published") {}
    assert!(program.wait().success());
}

#[test]
fn verify_proves_a_flow_and_cleans_up() {
    let broker = Broker::get();
    let two = "--queue-pattern perf-v-%d --queue-pattern-from 1 --queue-pattern-to 2";
    let flow = "--verify -x 2 -y 2 -C 2000 -q 100 -A 10 -s 32-3000";
    for how in [format!("{two} {flow}"), format!("{two} {flow} -t fanout -e perf-v-fanout")] {
        let report = report(&broker.url, &how, 0);
        check(&report["verify"], &[("lost", 0), ("duplicated", 0), ("reordered", 0)]);
        assert_eq!(report["confirmed"], 4000);
    }
    let gone = output(&broker.url, "-p -u perf-v-1 -x 0");
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn verify_finds_what_a_queue_drops() {
    let broker = Broker::get();
    // The queue drops its oldest messages, and nobody consumes until all are confirmed.
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    let flow = "--verify -u perf-dropped --queue-args x-max-length=90 --shutdown-timeout 1";
    let arguments = format!("{flow} --ledger {}", ledger.display());
    let first = report(&broker.url, &format!("{arguments} -y 0 -C 100"), 0);
    check(&first["verify"], &[("lost", 0), ("missing", 100)]);
    let second = report(&broker.url, &format!("{arguments} -x 0"), 3);
    check(&second["verify"], &[("lost", 10), ("duplicated", 0), ("missing", 0)]);
    assert_eq!(
        second["verify"]["examples"][0],
        "lost: lane 0 numbers 0 to 9 in queue perf-dropped"
    );
    let human = output(&broker.url, &format!("{arguments} -x 0"));
    assert!(String::from_utf8_lossy(&human.stdout).contains("verified   10 lost, 0 duplicated"));
}

#[test]
fn verify_survives_the_death_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let url = server.url.clone();
    let json = folder.path().join("report.json");
    let flow = "--verify -x 2 -y 2 -r 2000 -q 100 -A 10 -z 4 -i 0.2 --queue-pattern perf-k-%d";
    let flow = format!("{flow} --queue-pattern-from 1 --queue-pattern-to 2 -o {}", json.display());
    let mut program = Program::start(&mut perf(&url, &flow));
    for _ in 0..3 {
        assert!(program.line().contains("sent"));
        server = restart(server, folder.path());
    }
    while !program.line().starts_with("verified") {}
    program.wait();
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    // The mark of a delivery is written beside it, not before: what a client had in the moment of the kill may come
    // without the flag.
    check(&report["verify"], &[("lost", 0), ("reordered", 0), ("damaged", 0), ("invented", 0)]);
    assert!(0 < report["reconnects"].as_u64().unwrap(), "{report}");
}

#[test]
fn a_server_with_tls_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file("certificate"), made.cert.pem()).unwrap();
    std::fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
    let mut command = warren();
    command.args(["serve", "--log", "error", "--listen", "amqps://127.0.0.1:0"]);
    command.args(["--data-dir", &file("data"), "--tls-key", &file("key")]);
    let server = Program::start(command.args(["--tls-cert", &file("certificate")]));
    let line = server.line();
    let url = format!("amqps://localhost:{}", line.rsplit_once(':').unwrap().1);
    let trust = format!("--tls-ca {}", file("certificate"));
    let flow = format!("{trust} -x 2 -y 2 -C 1000 -s 16-20000 -c 100 -q 50 -A 5");
    check(&report(&url, &flow, 0), &[("confirmed", 2000), ("consumed", 2000)]);
    // More than a session and its socket hold: who publishes waits for room again and again.
    let flood = report(&url, &format!("{trust} -d perf-tls -y 0 -C 30 -s 1000000 -c 30"), 0);
    check(&flood, &[("published", 30), ("confirmed", 30)]);
    assert_eq!(output(&url, "-C 1").status.code(), Some(1), "nobody vouches for it");
}

#[test]
fn the_commands_of_the_readme_work() {
    let broker = Broker::get();
    let readme = include_str!("../README.md");
    let commands: Vec<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("warren perf ")).collect();
    assert!(3 <= commands.len(), "{commands:?}");
    for command in commands {
        let output = output(&broker.url, command);
        let (printed, error) = (&output.stdout, &output.stderr);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(error));
        assert!(String::from_utf8_lossy(printed).contains("\nreceived "), "{command}");
    }
}

/// Kills a server, and starts another one on its port and data.
fn restart(mut server: Server, folder: &Path) -> Server {
    server.program.signal(Signal::KILL);
    server.program.wait();
    Server::start_on(folder, &server.url)
}
