//! `warren users`, `warren ctl` and the like against a server, and definitions on their way to RabbitMQ and back.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use support::{Program, Server, readme_commands, warren};
use warren::amqp::client::Connection;
use warren::hub::run;

fn ask(data: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = warren();
    command.args(words).env("WARREN_DATA_DIR", data).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    if status.success() {
        Ok(String::from_utf8(stdout).unwrap())
    } else {
        Err(String::from_utf8(stderr).unwrap())
    }
}

fn ok(data: &Path, words: &[&str]) -> String {
    ask(data, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[track_caller]
fn fails(data: &Path, words: &[&str], why: &str) {
    let error = ask(data, words).unwrap_err();
    assert!(error.contains(why) && error.lines().count() <= 3, "{words:?}: {error}");
}

/// Whether a user can log in and open `/`.
fn logs_in(url: &str, user: &str, password: &str) -> bool {
    let url = url.replace("amqp://", &format!("amqp://{user}:{password}@"));
    run(move || Connection::open(&url).and_then(|connection| connection.close()).is_ok())
}

#[test]
fn users_are_made_changed_and_deleted_and_survive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let server = Server::start(data);
    ok(data, &["users", "add", "ann", "secret", "--tag", "monitoring"]);
    fails(data, &["users", "add", "ann", "x"], "User 'ann' already exists");
    assert!(!logs_in(&server.url, "ann", "secret"), "without permissions");
    ok(data, &["permissions", "set", "ann", "^a", "^b", "^c"]);
    assert!(logs_in(&server.url, "ann", "secret"));
    assert!(!logs_in(&server.url, "ann", "wrong"));
    ok(data, &["ctl", "change_password", "ann", "other"]);
    assert!(!logs_in(&server.url, "ann", "secret") && logs_in(&server.url, "ann", "other"));
    // Told that it is done, it is on disk.
    server.program.signal(Signal::KILL);
    drop(server);
    let server = Server::start(data);
    assert!(logs_in(&server.url, "ann", "other"));
    assert_eq!(
        ok(data, &["users", "list"]),
        "user\ttags\nann\t[monitoring]\nguest\t[administrator]\n"
    );
    let permissions = ok(data, &["ctl", "list_permissions", "-p", "/", "-s"]);
    assert_eq!(permissions, "ann\t^a\t^b\t^c\nguest\t.*\t.*\t.*\n");
    fails(data, &["ctl", "authenticate_user", "ann", "secret"], "invalid credentials");
    ok(data, &["users", "clear-password", "ann"]);
    assert!(!logs_in(&server.url, "ann", "other"));
    ok(data, &["users", "delete", "guest"]);
    assert!(!logs_in(&server.url, "guest", "guest"));
    drop(server);
    // The default user is made once.
    let server = Server::start(data);
    assert!(!logs_in(&server.url, "guest", "guest"));
}

#[test]
fn a_virtual_host_has_a_type_for_its_queues() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let _server = Server::start(data);
    ok(data, &["vhosts", "add", "a", "--default-queue-type", "quorum", "--description", "d"]);
    ok(data, &["ctl", "add_vhost", "b", "--default-queue-type=stream", "--tags", "x,y"]);
    fails(
        data,
        &["vhosts", "add", "c", "--default-queue-type", "heap"],
        "Unsupported default queue type: heap",
    );
    let list = ok(data, &["vhosts", "list"]);
    assert!(
        list.contains("\na\td\t[]\tquorum\n") && list.contains("\nb\t\t[x, y]\tstream\n"),
        "{list}"
    );
}

#[test]
fn what_cannot_be_done_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    fails(data, &["users", "list"], "no server runs with the control socket");
    fails(
        data,
        &["users", "list"],
        "control.sock: start one with `warren serve`, or name the folder",
    );
    let _server = Server::start(data);
    let mode = fs::metadata(data.join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (words, why) in [
        (&["users", "delete", "bob"][..], "User 'bob' does not exist"),
        (&["permissions", "set", "guest", "(", "", ""], "regular expression '(' is invalid"),
        (&["permissions", "list", "-p", "v"], "Virtual host 'v' does not exist"),
        (&["policies", "set", "p", "", "{\"x\": 1}"], "are not recognised policy settings"),
        (&["policies", "set", "p", "", "[1]"], "is no JSON object"),
        (&["ctl", "clear_policy", "p"], "Policy 'p' does not exist"),
        (&["queues", "purge", "q"], "no queue 'q' in vhost '/'"),
        (&["connections", "close", "1.1"], "There is no connection '1.1'"),
        (&["ctl", "nonsense"], "'nonsense' is no command known here: `warren ctl help` lists"),
        (&["ctl", "delete_user"], "write it so: warren ctl delete_user NAME"),
        (&["ctl", "list_users", "nme"], "write it so: warren ctl list_users"),
        (&["limits", "vhost", "/", "5"], "'5' is no JSON object"),
        (&["exchanges", "list", "-p", "v"], "Virtual host 'v' does not exist"),
        (&["definitions", "import", "/there/is/none"], "cannot read /there/is/none: No such file"),
        (&["definitions", "import", "/dev/null"], "there are no definitions in /dev/null: EOF"),
        (
            &["publish", "-k", "q", "x", "--url", "amqp://127.0.0.1:1"],
            "warren: cannot connect to 127.0.0.1:1: Connection refused (os error 111)\n",
        ),
    ] {
        fails(data, words, why);
    }
}

#[test]
fn definitions_are_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let _server = Server::start(folder.path());
    let file = folder.path().join("definitions.json");
    for text in ["[]", "5", "\"queues\""] {
        fs::write(&file, text).unwrap();
        let words = ["definitions", "import", file.to_str().unwrap()];
        fails(folder.path(), &words, "they are one JSON object with lists such as \"queues\"");
    }
}

#[test]
fn lists_are_of_one_virtual_host_or_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let _server = Server::start(data);
    ok(data, &["vhosts", "add", "v"]);
    let lines = |words: &[&str]| ok(data, words).lines().count();
    assert_eq!(lines(&["exchanges", "list"]), 16);
    assert_eq!(lines(&["exchanges", "list", "-p", "v"]), 8);
    let mut misspelt = warren();
    misspelt.args(["ctl", "list_vhosts", "nme", "-s"]).env("WARREN_DATA_DIR", data);
    let Output { status, stdout, stderr } = misspelt.output().unwrap();
    assert!(status.success() && stdout == b"\n\n");
    assert!(
        String::from_utf8(stderr).unwrap().starts_with("there is no column 'nme', which stays")
    );
    let help = ok(data, &["ctl", "help"]);
    assert!(
        help.contains("add_user NAME [PASSWORD]\n") && help.contains("\nlist_users\n"),
        "{help}"
    );
    for command in ["queues", "bindings", "consumers"] {
        let titles = ok(data, &[command, "list", "-p", "v"]);
        assert!(titles.starts_with("vhost\t") && titles.lines().count() == 1, "{titles}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let server = Server::start(data);
    server.program.signal(Signal::KILL);
    drop(server);
    assert!(data.join("control.sock").exists());
    let server = Server::start(data);
    ok(data, &["status"]);
    drop(server);
    let file = data.join("a file");
    fs::write(&file, "precious").unwrap();
    let words = ["serve", "--listen", "amqp://127.0.0.1:0", "--log", "off", "--control"];
    let output = warren().args(words).arg(&file).arg("--data-dir").arg(data).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("a file in its place that is no socket"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn queues_and_policies_are_listed_as_rabbitmqctl_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let definitions = folder.path().join("definitions.json");
    fs::write(
        &definitions,
        r##"{"queues": [{"name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}],
             "bindings": [{"source": "amq.topic", "vhost": "/", "destination": "q", "destination_type": "queue",
                           "routing_key": "a.#", "arguments": {}}]}"##,
    )
    .unwrap();
    let mut command = warren();
    command.args(["serve", "--log", "off", "--listen", "amqp://127.0.0.1:0", "--definitions"]);
    let program = Program::start(command.arg(&definitions).arg("--data-dir").arg(data));
    let url = program.line().strip_prefix("listening ").unwrap().to_owned();
    program.expect(&["ready"]);
    let publish = ["publish", "--url", &url, "--exchange", "amq.topic", "-k", "a.b", "body"];
    ok(data, &publish);
    ok(data, &["ctl", "set_policy", "short", "^q", "{\"max-length\": 5}", "--apply-to", "queues"]);
    let queues = ok(data, &["ctl", "-q", "list_queues", "name", "messages", "policy"]);
    assert_eq!(queues, "name\tmessages\tpolicy\nq\t1\tshort\n");
    let json = ok(data, &["ctl", "list_queues", "name", "durable", "--formatter", "json"]);
    assert_eq!(json, "[{\"name\":\"q\",\"durable\":true}]\n");
    let bindings = ok(data, &["bindings", "list"]);
    assert!(bindings.contains("amq.topic\tq\tqueue\ta.#\t{}\n"), "{bindings}");
    assert_eq!(ok(data, &["queues", "purge", "q"]), "1\n");
    ok(data, &["queues", "delete", "q"]);
    assert_eq!(ok(data, &["ctl", "-s", "list_queues"]), "");
}

#[test]
fn wrong_definitions_at_the_start_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("definitions.json");
    fs::write(&file, r#"{"permissions": [{"user": "nobody", "vhost": "/", "configure": "", "write": "", "read": ""}]}"#)
        .unwrap();
    let words = ["serve", "--listen", "amqp://127.0.0.1:0", "--log", "off", "--definitions"];
    let output = warren().args(words).arg(&file).args(["--data-dir", "none"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("User 'nobody' does not exist"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn definitions_go_to_another_server_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let file = folder.path().join("definitions.json");
    let file = file.to_str().unwrap();
    let _one = Server::start(&one);
    ok(&one, &["users", "add", "ann", "secret"]);
    ok(&one, &["permissions", "set", "ann", "", "", ".*"]);
    ok(&one, &["topic-permissions", "set", "ann", "amq.topic", "^a", "^b"]);
    ok(&one, &["policies", "set", "p", "^q", "{\"max-length\": 5}", "--priority", "3"]);
    ok(&one, &["operator-policies", "set", "p", "^q", "{\"max-length\": 4}"]);
    ok(&one, &["limits", "vhost", "/", "{\"max-queues\": 100}"]);
    ok(&one, &["definitions", "export", file]);
    let other_server = Server::start(&other);
    ok(&other, &["definitions", "import", file]);
    let exported = ok(&other, &["definitions", "export"]);
    assert_eq!(exported.trim_end(), fs::read_to_string(file).unwrap().trim_end());
    assert!(logs_in(&other_server.url, "ann", "secret"));
    // Who would be lost in RabbitMQ is named.
    let output = warren().args(["definitions", "export"]).env("WARREN_DATA_DIR", &one).output();
    let warning = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(warning.contains("RabbitMQ cannot check the passwords of: ann."), "{warning}");
    let definitions: Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(definitions["policies"][0]["priority"], 3);
}

#[test]
fn a_folder_whose_path_is_too_long_for_a_socket_still_serves() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("x".repeat(120));
    let server = Server::start(&data);
    assert!(logs_in(&server.url, "guest", "guest"));
    let socket = folder.path().join("socket");
    drop(server);
    let mut command = warren();
    command.args(["serve", "--log", "off", "--listen", "amqp://127.0.0.1:0", "--control"]);
    let program = Program::start(command.arg(&socket).arg("--data-dir").arg(&data));
    assert!(program.line().starts_with("listening "));
    program.expect(&["ready"]);
    ok(&data, &["users", "list", "--control", socket.to_str().unwrap()]);
}

#[test]
fn the_readmes_tenant_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let _server = Server::start(folder.path());
    let mut outputs = Vec::new();
    for words in readme_commands("warren vhosts add") {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        outputs.push(ok(folder.path(), &words));
    }
    let connections = outputs.pop().unwrap();
    let policies = outputs.pop().unwrap();
    assert!(outputs.iter().all(String::is_empty), "{outputs:?}");
    assert!(policies.contains("short") && policies.contains("reject-publish"), "{policies}");
    assert_eq!(connections.lines().count(), 1, "nobody but the titles: {connections}");
}
