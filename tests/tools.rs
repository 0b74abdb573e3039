//! The command-line tools, against our broker or the one that the environment names.

mod support;

use std::process::{Command, Stdio};

use support::{Broker, Program, readme_commands, warren};
use warren::amqp::client::{Connection, QueueOptions};
use warren::hub::run;

struct Tools {
    broker: Broker,
    queue: &'static str,
}

impl Tools {
    /// With a queue of that name, and nothing in it.
    fn new(queue: &'static str) -> Self {
        let broker = Broker::get();
        let url = broker.url.clone();
        run(move || {
            let connection = Connection::open(&url).unwrap();
            let channel = connection.channel().unwrap();
            channel.queue_delete(queue, false, false).unwrap();
            channel
                .queue_declare(queue, QueueOptions { durable: true, ..QueueOptions::default() })
                .unwrap();
            connection.close().unwrap();
        });
        Self { broker, queue }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = warren();
        command.args(arguments).env("WARREN_URL", &self.broker.url).stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn error(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.lines().count(), 1, "one line: {error}");
        error
    }
}

#[test]
fn publish_get_and_queues() {
    let tools = Tools::new("tools-test-get");
    for body in ["one", "two", "three"] {
        tools.output(&[
            "publish",
            "--persistent",
            "--header",
            "from=a test",
            "-k",
            tools.queue,
            body,
        ]);
    }
    let show = ["queues", tools.queue];
    assert_eq!(tools.output(&show), "messages\tconsumers\tqueue\n3\t0\ttools-test-get\n");
    assert_eq!(tools.output(&["get", "--requeue", "-n", "2", tools.queue]), "one\ntwo\n");
    assert_eq!(tools.output(&["get", tools.queue]), "one\n");
    assert_eq!(tools.output(&["get", "-n", "9", tools.queue]), "two\nthree\n");
    assert_eq!(tools.output(&["get", tools.queue]), "");
}

#[test]
fn consume_waits_for_what_comes() {
    let tools = Tools::new("tools-test-consume");
    let consumer = Program::start(&mut tools.command(&["consume", "-n", "2", tools.queue]));
    tools.output(&["publish", "-k", tools.queue, "first"]);
    consumer.expect(&["first"]);
    // Without a body, it is standard input: here nothing.
    tools.output(&["publish", "-k", tools.queue]);
    consumer.expect(&[""]);
    consumer.finish();
    assert_eq!(tools.output(&["get", tools.queue]), "");
}

#[test]
fn what_goes_wrong_is_one_clear_line() {
    let tools = Tools::new("tools-test-errors");
    let error = tools.error(&["get", "no such queue"]);
    assert!(error.contains("404 NOT_FOUND - no queue 'no such queue' in vhost '/'"), "{error}");
    let error = tools.error(&["publish", "-k", "no such queue", "x"]);
    assert!(error.contains("no queue took the message"), "{error}");
    let error = tools.error(&["queues", "--url", "amqp://127.0.0.1:1", "q"]);
    assert!(error.contains("cannot connect to 127.0.0.1:1"), "{error}");
}

#[test]
fn the_commands_of_the_readme_work() {
    let tools = Tools::new("tasks");
    let mut outputs = Vec::new();
    for words in readme_commands("warren publish") {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words[0] == "consume" {
            // It waits for more, for ever.
            let consumer = Program::start(&mut tools.command(&words));
            tools.output(&["publish", "-k", "tasks", "one more"]);
            consumer.expect(&["one more"]);
        } else {
            outputs.push(tools.output(&words));
        }
    }
    assert_eq!(outputs, ["", "messages\tconsumers\tqueue\n1\t0\ttasks\n", "do this\n"]);
}
