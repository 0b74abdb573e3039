//! The six tutorials: the example programs, with the command lines of RabbitMQ's own, on a server of ours.

mod support;

use support::{Program, Server, example};

struct Stage {
    server: Server,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { server: Server::start(folder.path()), _folder: folder }
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Program {
        Program::start(example(name).args(arguments).env("AMQP_URL", &self.server.url))
    }

    fn run(&self, name: &str, arguments: &[&str]) {
        self.start(name, arguments).finish();
    }
}

const WAITING: &str = " [*] Waiting for messages. To exit press CTRL+C";
const WAITING_FOR_LOGS: &str = " [*] Waiting for logs. To exit press CTRL+C";

#[test]
fn one_hello_world() {
    let stage = Stage::new();
    stage.run("send", &[]);
    let receiver = stage.start("receive", &[]);
    receiver.expect(&[WAITING, " [x] Received Hello World!"]);
    stage.run("send", &[]);
    receiver.expect(&[" [x] Received Hello World!"]);
}

#[test]
fn two_work_queues() {
    let stage = Stage::new();
    let doomed = stage.start("worker", &[]);
    doomed.expect(&[WAITING]);
    // A minute of work, which it will not finish.
    let long = ".".repeat(60);
    stage.run("new_task", &["long", &long]);
    doomed.expect(&[&format!(" [x] Received long {long}")]);
    let other = stage.start("worker", &[]);
    other.expect(&[WAITING]);
    for task in ["first", "second"] {
        stage.run("new_task", &[task]);
        other.expect(&[&format!(" [x] Received {task}"), &format!(" [x] Done {task}")]);
    }
    drop(doomed);
    other.expect(&[&format!(" [x] Received long {long}")]);
}

#[test]
fn three_publish_subscribe() {
    let stage = Stage::new();
    stage.run("emit_log", &["nobody listens"]);
    let receivers = [stage.start("receive_logs", &[]), stage.start("receive_logs", &[])];
    receivers.iter().for_each(|receiver| receiver.expect(&[WAITING_FOR_LOGS]));
    stage.run("emit_log", &[]);
    stage.run("emit_log", &["to", "all"]);
    receivers
        .iter()
        .for_each(|receiver| receiver.expect(&[" [x] info: Hello World!", " [x] to all"]));
}

#[test]
fn four_routing() {
    let stage = Stage::new();
    let errors = stage.start("receive_logs_direct", &["error"]);
    let all = stage.start("receive_logs_direct", &["info", "warning", "error"]);
    errors.expect(&[WAITING_FOR_LOGS]);
    all.expect(&[WAITING_FOR_LOGS]);
    stage.run("emit_log_direct", &["info", "all is well"]);
    stage.run("emit_log_direct", &["error", "Run. Run. Or it will explode."]);
    errors.expect(&[" [x] error:Run. Run. Or it will explode."]);
    all.expect(&[" [x] info:all is well", " [x] error:Run. Run. Or it will explode."]);
    assert!(errors.is_silent());
}

#[test]
fn five_topics() {
    let stage = Stage::new();
    let all = stage.start("receive_logs_topic", &["#"]);
    let some = stage.start("receive_logs_topic", &["kern.*", "*.critical"]);
    all.expect(&[WAITING_FOR_LOGS]);
    some.expect(&[WAITING_FOR_LOGS]);
    stage.run("emit_log_topic", &["kern.critical", "A critical kernel error"]);
    stage.run("emit_log_topic", &["cron.info", "nothing to do"]);
    stage.run("emit_log_topic", &["cron.critical", "late"]);
    all.expect(&[
        " [x] kern.critical:A critical kernel error",
        " [x] cron.info:nothing to do",
        " [x] cron.critical:late",
    ]);
    // Two bindings match the first, and still it comes once.
    some.expect(&[" [x] kern.critical:A critical kernel error", " [x] cron.critical:late"]);
}

#[test]
fn six_rpc() {
    let stage = Stage::new();
    let server = stage.start("rpc_server", &[]);
    server.expect(&[" [x] Awaiting RPC requests"]);
    let client = stage.start("rpc_client", &["30"]);
    client.expect(&[" [x] Requesting fib(30)", " [.] Got 832040"]);
    client.finish();
    server.expect(&[" [.] fib(30)"]);
}

#[test]
fn receivers_without_keys_say_how_they_are_used() {
    for name in ["receive_logs_direct", "receive_logs_topic"] {
        let mut program = Program::start(&mut example(name));
        assert_eq!(program.wait().code(), Some(1));
    }
}
