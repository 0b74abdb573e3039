//! Definitions on their way from a real RabbitMQ to Warren and back. Nothing is tested where RabbitMQ is not installed.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use support::{Server, warren};

const BIN: &str = "/usr/lib/rabbitmq/bin";

/// A RabbitMQ node that shares nothing with one that the system may run.
struct RabbitMq {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl RabbitMq {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // All at once, so that no two are the same.
        let taken = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, dist, epmd] = taken.map(|port| port.local_addr().unwrap().port().to_string());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let variables = vec![
            ("HOME", folder.path().display().to_string()),
            ("RABBITMQ_NODENAME", format!("warren-test-{port}@localhost")),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", port),
            ("RABBITMQ_DIST_PORT", dist),
            ("ERL_EPMD_PORT", epmd),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("logs")),
            ("RABBITMQ_PID_FILE", path("pid")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq")),
        ];
        let mut server = Self { folder, variables, child: None };
        let mut command = server.command("rabbitmq-server");
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        server.child = Some(quiet.process_group(0).spawn().unwrap());
        server
            .ctl(&["wait", &server.path("pid").display().to_string(), "--timeout", "90"])
            .unwrap();
        server
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(BIN).join(program));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ctl(&self, words: &[&str]) -> Result<String, String> {
        let output = self.command("rabbitmqctl").arg("-q").args(words).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn export(&self, name: &str) -> Value {
        let path = self.path(name);
        self.ctl(&["export_definitions", path.to_str().unwrap()]).unwrap();
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        let _ = self.ctl(&["stop"]);
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        let _ = Command::new("epmd").arg("-kill").envs(variables).output();
        if let Some(mut child) = self.child.take() {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}

fn ask(data: &Path, words: &[&str]) -> String {
    let output = warren().args(words).env("WARREN_DATA_DIR", data).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// RabbitMQ writes an operator policy's as a list of pairs.
fn dictionary(value: &Value) -> Value {
    let Value::Array(pairs) = value else { return value.clone() };
    pairs.iter().map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].clone())).collect()
}

#[track_caller]
fn same(ours: &Value, theirs: &Value) {
    let (ours, theirs) = (compared(ours), compared(theirs));
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|item| !others.contains(item)).cloned().collect()
    };
    let (more, less) = (without(&ours, &theirs), without(&theirs, &ours));
    assert!(more.is_empty() && less.is_empty(), "only here: {more:#?}\nonly there: {less:#?}");
}

/// What both must say in the same way, however they sort it and write dictionaries.
fn compared(definitions: &Value) -> Vec<String> {
    let mut items = Vec::new();
    for list in [
        "permissions",
        "topic_permissions",
        "parameters",
        "global_parameters",
        "policies",
        "queues",
        "exchanges",
        "bindings",
    ] {
        for item in definitions[list].as_array().unwrap() {
            // Keys in one order. RabbitMQ exports no internal exchanges, so it does not say which are.
            let keys = item.as_object().unwrap().iter().filter(|(key, _)| *key != "internal");
            let mut sorted: BTreeMap<_, Value> =
                keys.map(|(key, value)| (key, value.clone())).collect();
            if let Some(definition) =
                sorted.get_mut(&"value".to_owned()).and_then(|it| it.get_mut("definition"))
            {
                *definition = dictionary(definition);
            }
            items.push(format!("{list}: {}", serde_json::to_string(&sorted).unwrap()));
        }
    }
    for vhost in definitions["vhosts"].as_array().unwrap() {
        let metadata = &vhost["metadata"];
        // What rabbitmqctl was told is kept as it was told. Limits are parameters too.
        let tags = match &metadata["tags"] {
            Value::String(tags) => tags.split(',').map(Value::from).collect(),
            tags => tags.clone(),
        };
        items.push(format!("vhost: {} {} {tags}", vhost["name"], metadata["description"]));
    }
    for user in definitions["users"].as_array().unwrap() {
        items.push(format!(
            "user: {} {} {} {}",
            user["name"], user["password_hash"], user["tags"], user["limits"]
        ));
    }
    items.sort();
    items
}

const DEAD: &str = r#"{"dead-letter-exchange":"x","dead-letter-strategy":"at-least-once","overflow":"reject-publish"}"#;

/// Users with older hashes, every type of queues, and arguments of many types.
const TOPOLOGY: &str = r##"{
    "users": [
        {"name": "carl", "hashing_algorithm": "rabbit_password_hashing_sha512", "tags": [],
         "password_hash": "c2FsdMBnbXKpcFDu2BQwmP+46xfQoCPX5ZRGmHz/OjgtwLtZcVVmNXPUh2tG6/v11T7h0IOm+DAZUHipYWTJkjka9TU="},
        {"name": "dan", "hashing_algorithm": "rabbit_password_hashing_md5", "tags": ["management"],
         "password_hash": "c2FsdAcTeoOEp8yZwGn0BKftmaQ="}
    ],
    "queues": [
        {"name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}},
        {"name": "classic", "vhost": "/", "durable": true, "auto_delete": true,
         "arguments": {"x-queue-type": "classic", "x-max-length": 10, "x-max-priority": 5, "x-queue-mode": "lazy",
                       "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q", "x-expires": 86400000}},
        {"name": "quorum", "vhost": "v/2", "durable": true, "auto_delete": false,
         "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 3, "x-overflow": "reject-publish"}},
        {"name": "stream", "vhost": "v/2", "durable": true, "auto_delete": false,
         "arguments": {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 5000000000}}
    ],
    "exchanges": [
        {"name": "x", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false, "internal": false,
         "arguments": {"alternate-exchange": "amq.fanout"}},
        {"name": "h", "vhost": "v/2", "type": "headers", "durable": true, "auto_delete": true, "internal": false,
         "arguments": {"ours": [1, "two", {"three": true}]}}
    ],
    "bindings": [
        {"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "a.#",
         "arguments": {"n": 1}},
        {"source": "x", "vhost": "/", "destination": "amq.direct", "destination_type": "exchange", "routing_key": "*.ü",
         "arguments": {}},
        {"source": "h", "vhost": "v/2", "destination": "quorum", "destination_type": "queue", "routing_key": "",
         "arguments": {"x-match": "any", "text": "t", "number": 17, "float": 1.5, "truth": false, "list": [1, "a"],
                       "table": {"k": "v"}}},
        {"source": "amq.topic", "vhost": "v/2", "destination": "stream", "destination_type": "queue",
         "routing_key": "#", "arguments": {}}
    ]
}"##;

#[test]
fn definitions_survive_the_way_from_rabbitmq_to_warren_and_back() {
    if !Path::new(BIN).join("rabbitmq-server").exists() {
        eprintln!("RabbitMQ is not installed: nothing was tested");
        return;
    }
    let rabbit = RabbitMq::start();
    for words in [
        &["add_user", "bob", "bobpw"][..],
        &["set_user_tags", "bob", "monitoring", "policymaker"],
        &["set_permissions", "bob", "^b", ".*", ".*"],
        &["set_topic_permissions", "bob", "amq.topic", "^x", "^y"],
        &[
            "set_policy",
            "pol",
            "^q",
            "{\"max-length\":7}",
            "--priority",
            "2",
            "--apply-to",
            "queues",
        ],
        &["set_operator_policy", "op", "^q", "{\"max-length\":3}"],
        &["set_vhost_limits", "{\"max-queues\":99}"],
        &["add_vhost", "v/2", "--description", "the second", "--tags", "a,b"],
        &["set_permissions", "-p", "v/2", "guest", "^g", "", ".*"],
        &["set_vhost_limits", "-p", "v/2", "{\"max-connections\":7}"],
        &["set_policy", "-p", "v/2", "dead", "^q", DEAD, "--apply-to", "queues"],
        &["set_global_parameter", "of_ours", "{\"a\":[1,\"x\"]}"],
        &["set_user_limits", "bob", "{\"max-connections\":5}"],
    ] {
        rabbit.ctl(words).unwrap();
    }
    let topology = rabbit.path("topology.json");
    fs::write(&topology, TOPOLOGY).unwrap();
    rabbit.ctl(&["import_definitions", topology.to_str().unwrap()]).unwrap();
    let theirs = rabbit.export("theirs.json");

    // There: the same, and the password too.
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let _server = Server::start(data);
    ask(data, &["definitions", "import", rabbit.path("theirs.json").to_str().unwrap()]);
    for (user, password) in [("bob", "bobpw"), ("carl", "caropw"), ("dan", "danpw")] {
        ask(data, &["users", "authenticate", user, password]);
    }
    let ours = rabbit.path("ours.json");
    ask(data, &["definitions", "export", ours.to_str().unwrap()]);
    let exported: Value = serde_json::from_slice(&fs::read(&ours).unwrap()).unwrap();
    same(&exported, &theirs);
    let operator = "/\top\t^q\tall\t{\"max-length\":3}\t0\n";
    assert!(ask(data, &["operator-policies", "list"]).contains(operator));

    // And back, with a user whose password RabbitMQ cannot check, but keeps.
    ask(data, &["users", "add", "carol", "carolpw"]);
    ask(data, &["definitions", "export", ours.to_str().unwrap()]);
    rabbit.ctl(&["delete_user", "bob"]).unwrap();
    rabbit.ctl(&["clear_policy", "pol"]).unwrap();
    rabbit.ctl(&["import_definitions", ours.to_str().unwrap()]).unwrap();
    rabbit.ctl(&["authenticate_user", "bob", "bobpw"]).unwrap();
    rabbit.ctl(&["authenticate_user", "carol", "carolpw"]).unwrap_err();
    let exported: Value = serde_json::from_slice(&fs::read(&ours).unwrap()).unwrap();
    same(&exported, &rabbit.export("again.json"));
    ask(data, &["users", "delete", "carol"]);
    ask(data, &["definitions", "import", rabbit.path("again.json").to_str().unwrap()]);
    ask(data, &["users", "authenticate", "carol", "carolpw"]);
}
