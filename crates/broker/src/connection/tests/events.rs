//! The exchange of events, through connections. Keys and headers are those of RabbitMQ 3.10.8.

use serde_json::json;
use warren_amqp::frame::PROTOCOL_HEADER;
use warren_amqp::method::{basic, connection, exchange, queue};
use warren_amqp::{FieldTable, FieldValue};
use warren_reactor::PeerAddr;

use super::storing::open;
use super::tenancy::ask;
use super::tracing::{copy, watch};
use super::{Client, Server};
use crate::alarms::Resource;

/// The next event: its key, and its headers without the time.
#[track_caller]
fn event(watcher: &mut Client) -> (String, FieldTable) {
    let (key, properties, body) = copy(watcher);
    assert!(body.is_empty());
    // The engine's time: 1,000,000 seconds.
    assert_eq!((properties.delivery_mode, properties.timestamp), (Some(2), Some(1_000_000)));
    let mut headers = properties.headers.expect("an event has headers");
    let last = headers.iter().next_back().map(|(name, value)| (name.to_owned(), value.clone()));
    assert_eq!(last, Some(("timestamp_in_ms".into(), FieldValue::I64(1_000_000_000))));
    headers.remove("timestamp_in_ms");
    (key, headers)
}

#[track_caller]
fn expect(watcher: &mut Client, key: &str, headers: FieldTable) {
    assert_eq!(event(watcher), (key.into(), headers));
}

/// The keys of the next events, with who did it and what is named.
#[track_caller]
fn keys<const N: usize>(watcher: &mut Client) -> [String; N] {
    std::array::from_fn(|_| {
        let (key, headers) = event(watcher);
        let text = |name| headers.get(name).and_then(FieldValue::as_str).unwrap_or("-");
        format!("{key} {} {}", text("user_who_performed_action"), text("name"))
    })
}

fn by(user: &str) -> FieldTable {
    FieldTable::new().with("user_who_performed_action", user)
}

fn none() -> FieldValue {
    FieldValue::Array(Vec::new())
}

fn number(number: i64) -> FieldValue {
    FieldValue::I64(number)
}

/// A watcher, and another client, of which the watcher has heard.
fn watched(server: &Server) -> (Client, Client) {
    let mut watcher = watch(server, "amq.rabbitmq.event");
    // The watcher's own binding and consumer.
    assert_eq!(event(&mut watcher).0, "binding.created");
    assert_eq!(event(&mut watcher).0, "consumer.created");
    let client = server.connect();
    for key in ["user.authentication.success", "connection.created", "channel.created"] {
        assert_eq!(event(&mut watcher).0, key);
    }
    (watcher, client)
}

fn delete(client: &mut Client, queue: &str) {
    client.send(1, &queue::Delete { queue, ..Default::default() });
    client.skip::<queue::DeleteOk>();
}

#[test]
fn queues_are_told_of() {
    let server = Server::new();
    let (mut watcher, mut client) = watched(&server);
    let arguments = FieldTable::new().with("x-max-length", FieldValue::I32(3));
    let declare = queue::Declare { queue: "q", arguments, ..Default::default() };
    client.send(1, &declare);
    client.skip::<queue::DeclareOk<'_>>();
    let pair = r#"{<<"x-max-length">>,signedint,3}"#;
    let headers = by("guest")
        .with("exclusive", false)
        .with("owner_pid", "")
        .with("arguments", FieldValue::Array(vec![pair.into()]))
        .with("auto_delete", false)
        .with("durable", false)
        .with("name", "q")
        .with("vhost", "/");
    expect(&mut watcher, "queue.created", headers);
    // To declare it again is no event.
    client.send(1, &declare);
    client.skip::<queue::DeclareOk<'_>>();
    delete(&mut client, "q");
    expect(&mut watcher, "queue.deleted", by("guest").with("name", "q").with("vhost", "/"));
    watcher.silent();
}

#[test]
fn exchanges_and_bindings_are_told_of() {
    let server = Server::new();
    let (mut watcher, mut client) = watched(&server);
    let declare =
        exchange::Declare { exchange: "x", kind: "direct", durable: true, ..Default::default() };
    client.send(1, &declare);
    client.expect(1, &exchange::DeclareOk {});
    let headers = by("guest")
        .with("policy", "")
        .with("arguments", none())
        .with("internal", false)
        .with("auto_delete", false)
        .with("durable", true)
        .with("type", "direct")
        .with("name", "x")
        .with("vhost", "/");
    expect(&mut watcher, "exchange.created", headers);
    client.declare("q");
    assert_eq!(event(&mut watcher).0, "queue.created");
    let bind = queue::Bind { queue: "q", exchange: "x", routing_key: "k", ..Default::default() };
    for _ in 0..2 {
        client.send(1, &bind);
        client.expect(1, &queue::BindOk {});
    }
    let binding = |user| {
        by(user)
            .with("vhost", "/")
            .with("arguments", none())
            .with("routing_key", "k")
            .with("destination_kind", "queue")
            .with("destination_name", "q")
            .with("source_kind", "exchange")
            .with("source_name", "x")
    };
    expect(&mut watcher, "binding.created", binding("guest"));
    client.send(1, &exchange::Delete { exchange: "x", ..Default::default() });
    client.expect(1, &exchange::DeleteOk {});
    expect(&mut watcher, "exchange.deleted", by("guest").with("name", "x").with("vhost", "/"));
    expect(&mut watcher, "binding.deleted", binding("guest"));
    watcher.silent();
}

#[test]
fn what_goes_with_a_queue_is_told_of_in_its_order() {
    let server = Server::new();
    let (mut watcher, mut client) = watched(&server);
    client.declare("q");
    let declare = exchange::Declare {
        exchange: "x",
        kind: "fanout",
        auto_delete: true,
        ..Default::default()
    };
    client.send(1, &declare);
    client.expect(1, &exchange::DeclareOk {});
    client.send(1, &queue::Bind { queue: "q", exchange: "x", ..Default::default() });
    client.expect(1, &queue::BindOk {});
    client.consume(1, "q", "c");
    let _: [String; 4] = keys(&mut watcher);
    delete(&mut client, "q");
    let want = [
        "consumer.deleted guest -",
        "exchange.deleted rmq-internal x",
        "binding.deleted rmq-internal -",
        "queue.deleted guest q",
    ];
    assert_eq!(keys(&mut watcher), want);
    watcher.silent();
}

#[test]
fn consumers_are_told_of() {
    let server = Server::new();
    let (mut watcher, mut client) = watched(&server);
    let declare = queue::Declare { queue: "q", auto_delete: true, ..Default::default() };
    client.send(1, &declare);
    client.skip::<queue::DeclareOk<'_>>();
    assert_eq!(event(&mut watcher).0, "queue.created");
    let arguments = FieldTable::new().with("x-priority", FieldValue::I32(3));
    let consume = basic::Consume { queue: "q", consumer_tag: "c", arguments, ..Default::default() };
    client.send(1, &consume);
    client.skip::<basic::ConsumeOk<'_>>();
    let (key, headers) = event(&mut watcher);
    let pid = headers.get("channel").cloned().unwrap();
    let pair = r#"{<<"x-priority">>,signedint,3}"#;
    let want = by("guest")
        .with("arguments", FieldValue::Array(vec![pair.into()]))
        .with("prefetch_count", number(0))
        .with("queue", "q")
        .with("vhost", "/")
        .with("channel", pid.clone())
        .with("ack_required", true)
        .with("exclusive", false)
        .with("consumer_tag", "c");
    assert_eq!((key.as_str(), headers), ("consumer.created", want));
    client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: false });
    client.skip::<basic::CancelOk<'_>>();
    let want = by("guest")
        .with("queue", "q")
        .with("vhost", "/")
        .with("channel", pid)
        .with("consumer_tag", "c");
    expect(&mut watcher, "consumer.deleted", want);
    // It went with its last consumer: the broker's doing.
    let want = by("rmq-internal").with("name", "q").with("vhost", "/");
    expect(&mut watcher, "queue.deleted", want);
    watcher.silent();
}

#[test]
fn connections_and_channels_are_told_of() {
    let server = Server::new();
    let mut watcher = watch(&server, "amq.rabbitmq.event");
    let _: [String; 2] = keys(&mut watcher);
    let mut client = server.dial(PeerAddr::Memory);
    client.wire.feed(&PROTOCOL_HEADER);
    client.skip::<connection::Start<'_>>();
    let start_ok = connection::StartOk {
        client_properties: FieldTable::new().with("connection_name", "me"),
        mechanism: "AMQPLAIN",
        response: b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest",
        locale: "en_US",
    };
    client.send(0, &start_ok);
    client.tune(60);
    client.open_channel(1);
    let want = FieldTable::new()
        .with("ssl", false)
        .with("auth_mechanism", "AMQPLAIN")
        .with("protocol", "{0,9,1}")
        .with("peer_port", "unknown")
        .with("peer_host", "memory")
        .with("connection_name", "memory -> memory")
        .with("host", "memory")
        .with("name", "guest")
        .with("connection_type", "network");
    expect(&mut watcher, "user.authentication.success", want);
    let (key, created) = event(&mut watcher);
    assert_eq!(key, "connection.created");
    for (header, value) in [
        ("user_who_performed_action", "guest".into()),
        ("node", "warren@localhost".into()),
        ("connected_at", number(1_000_000_000)),
        ("timeout", number(60)),
        ("vhost", "/".into()),
        ("auth_mechanism", "AMQPLAIN".into()),
        ("name", "memory -> memory".into()),
        ("user_provided_name", FieldValue::from("me")),
    ] {
        assert_eq!(created.get(header), Some(&value), "{header}");
    }
    let properties = created.get("client_properties").cloned().unwrap();
    let listed = properties.as_array().unwrap().iter().filter_map(FieldValue::as_str);
    let name = r#"{<<"connection_name">>,longstr,<<"me">>}"#;
    assert!(listed.clone().any(|pair| pair == name), "{properties:?}");
    let pid = created.get("pid").cloned().unwrap();
    let (key, channel) = event(&mut watcher);
    assert_eq!((key.as_str(), channel.get("connection")), ("channel.created", Some(&pid)));
    assert_eq!(channel.get("name"), Some(&"memory -> memory (1)".into()));
    client.send(1, &queue::Declare { queue: "q", exclusive: true, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
    assert_eq!(event(&mut watcher).1.get("owner_pid"), Some(&pid));
    client.consume(1, "q", "c");
    assert_eq!(event(&mut watcher).0, "consumer.created");
    client.wire.lose();
    let gone = ["consumer.deleted guest -", "channel.closed guest -"];
    assert_eq!(keys(&mut watcher), gone);
    let want = by("rmq-internal").with("name", "q").with("vhost", "/");
    expect(&mut watcher, "queue.deleted", want);
    let want = FieldTable::new()
        .with("client_properties", properties)
        .with("node", "warren@localhost")
        .with("pid", pid)
        .with("name", "memory -> memory")
        .with("user_provided_name", "me");
    expect(&mut watcher, "connection.closed", want);
    watcher.silent();
}

#[test]
fn a_refused_login_tells_why() {
    let server = Server::new();
    let (mut watcher, _client) = watched(&server);
    let mut client = server.dial(PeerAddr::Memory);
    client.log_in("PLAIN", b"\0bob\0x");
    let (key, headers) = event(&mut watcher);
    assert_eq!(key, "user.authentication.failure");
    assert_eq!(headers.get("name"), Some(&"bob".into()));
    let letters = headers.get("error").and_then(FieldValue::as_array).unwrap();
    let letter = |letter: &FieldValue| letter.as_i64().and_then(|letter| u8::try_from(letter).ok());
    let error: Option<Vec<u8>> = letters.iter().map(letter).collect();
    assert_eq!(error.as_deref(), Some(&b"user 'bob' - invalid credentials"[..]));
    client.wire.lose();
    assert_eq!(event(&mut watcher).0, "connection.closed");
    watcher.silent();
}

#[test]
fn alarms_are_told_of() {
    let server = Server::new();
    let (mut watcher, _client) = watched(&server);
    for (resource, source) in [(Resource::Memory, "memory"), (Resource::Disk, "disk")] {
        for (on, key) in [(true, "alarm.set"), (true, ""), (false, "alarm.cleared")] {
            server.engine.borrow_mut().set_alarm(resource, on);
            if key.is_empty() {
                watcher.silent();
                continue;
            }
            let node = FieldTable::new().with("node", "warren@localhost");
            expect(&mut watcher, key, node.with("source", source));
        }
    }
}

#[test]
fn users_and_what_they_may_are_told_of() {
    let server = Server::new();
    let (mut watcher, _client) = watched(&server);
    let cli = || by("rmq-cli");
    let ask = |request| ask(&server, request).unwrap();
    ask(json!({"op": "add_user", "name": "ann", "password": "x", "tags": ["monitoring"]}));
    expect(&mut watcher, "user.created", cli().with("name", "ann"));
    let tags = |tags: &[&str]| FieldValue::Array(tags.iter().map(|tag| (*tag).into()).collect());
    let want = cli().with("tags", tags(&["monitoring"])).with("name", "ann");
    expect(&mut watcher, "user.tags.set", want);
    ask(json!({"op": "change_password", "name": "ann", "password": "y"}));
    expect(&mut watcher, "user.password.changed", cli().with("name", "ann"));
    ask(json!({"op": "clear_password", "name": "ann"}));
    expect(&mut watcher, "user.password.cleared", cli().with("name", "ann"));
    ask(json!({"op": "set_user_tags", "name": "ann", "tags": []}));
    let want = cli().with("tags", none()).with("name", "ann");
    expect(&mut watcher, "user.tags.set", want);
    ask(json!({"op": "set_user_limits", "name": "ann", "limits": {"max-connections": 3}}));
    let limits = |limits: FieldTable| {
        let limits = limits.with("username", "ann");
        limits.with("user_who_performed_action", "rmq-cli").with("name", "limits")
    };
    let want = limits(FieldTable::new().with("max-connections", number(3)));
    expect(&mut watcher, "user.limits.set", want);
    ask(json!({"op": "set_user_limits", "name": "ann", "limits": {"max-connections": -1}}));
    expect(&mut watcher, "user.limits.cleared", limits(FieldTable::new()));

    ask(
        json!({"op": "set_permissions", "user": "ann", "configure": "a", "write": "b", "read": "c"}),
    );
    let rights = || cli().with("read", "c").with("write", "b");
    let of_user = |headers: FieldTable| headers.with("vhost", "/").with("user", "ann");
    let want = of_user(rights().with("configure", "a"));
    expect(&mut watcher, "permission.created", want);
    let exchange = "amq.topic";
    ask(json!({
        "op": "set_topic_permissions", "user": "ann", "exchange": exchange, "write": "b", "read": "c",
    }));
    let want = of_user(rights().with("exchange", exchange));
    expect(&mut watcher, "topic.permission.created", want);
    ask(json!({"op": "clear_topic_permissions", "user": "ann"}));
    expect(&mut watcher, "topic.permission.deleted", of_user(cli()));
    ask(json!({"op": "clear_permissions", "user": "ann"}));
    expect(&mut watcher, "permission.deleted", of_user(cli()));
    ask(json!({"op": "delete_user", "name": "ann"}));
    expect(&mut watcher, "user.deleted", cli().with("name", "ann"));
    watcher.silent();
}

#[test]
fn policies_and_parameters_are_told_of() {
    let server = Server::new();
    let (mut watcher, mut client) = watched(&server);
    client.declare("q");
    assert_eq!(event(&mut watcher).0, "queue.created");
    let cli = || by("rmq-cli");
    let ask = |request| ask(&server, request).unwrap();
    let policy = FieldTable::new()
        .with("apply-to", "queues")
        .with("priority", number(0))
        .with("definition", FieldTable::new().with("max-length", number(3)))
        .with("pattern", "^q");
    let named = |headers: FieldTable, name: &str| headers.with("vhost", "/").with("name", name);
    let of_queue = |headers: FieldTable| named(headers.with("type", "rabbit_classic_queue"), "q");
    let parameter = |headers: FieldTable, component: &str, name: &str| {
        headers.with("name", name).with("vhost", "/").with("component", component)
    };
    let by_cli = policy.clone().with("user_who_performed_action", "rmq-cli");
    for (operator, cleared) in [(false, "policy.cleared"), (true, "operator.policy.cleared")] {
        ask(json!({
            "op": "set_policy", "name": "p", "pattern": "^q", "apply_to": "queues",
            "definition": {"max-length": 3}, "operator": operator,
        }));
        if operator {
            let value = cli().with("value", policy.clone());
            expect(&mut watcher, "parameter.set", parameter(value, "operator_policy", "p"));
        }
        expect(&mut watcher, "queue.policy.updated", of_queue(by_cli.clone()));
        expect(&mut watcher, "policy.set", named(by_cli.clone(), "p"));
        ask(json!({"op": "clear_policy", "name": "p", "operator": operator}));
        expect(&mut watcher, "queue.policy.cleared", of_queue(cli()));
        if operator {
            expect(&mut watcher, "parameter.cleared", parameter(cli(), "operator_policy", "p"));
        }
        expect(&mut watcher, cleared, named(cli(), "p"));
    }
    ask(json!({"op": "set_vhost_limits", "limits": {"max-queues": 4}}));
    let limits = FieldTable::new().with("max-queues", number(4));
    let value = cli().with("value", limits.clone());
    expect(&mut watcher, "parameter.set", parameter(value, "vhost-limits", "limits"));
    let want = limits.with("user_who_performed_action", "rmq-cli").with("name", "limits");
    expect(&mut watcher, "vhost.limits.set", want);
    ask(json!({"op": "clear_vhost_limits"}));
    expect(&mut watcher, "parameter.cleared", parameter(cli(), "vhost-limits", "limits"));
    expect(&mut watcher, "vhost.limits.cleared", cli().with("name", "limits"));
    ask(json!({"op": "set_global_parameter", "name": "g", "value": [1.5, true, null, "x"]}));
    let value = vec![1.5.into(), true.into(), "null".into(), "x".into()];
    let want = cli().with("value", FieldValue::Array(value));
    expect(&mut watcher, "parameter.set", want.with("name", "g").with("component", "global"));
    ask(json!({"op": "clear_global_parameter", "name": "g"}));
    let want = cli().with("name", "g").with("component", "global");
    expect(&mut watcher, "parameter.set", want);
    watcher.silent();
}

#[test]
fn a_virtual_host_comes_and_goes_with_all_that_is_in_it() {
    let server = Server::new();
    let (mut watcher, _client) = watched(&server);
    let ask = |request| ask(&server, request).unwrap();
    ask(json!({"op": "add_vhost", "name": "v", "description": "d", "tags": ["a", "b"]}));
    let exchanges = [
        "",
        "amq.direct",
        "amq.topic",
        "amq.match",
        "amq.headers",
        "amq.fanout",
        "amq.rabbitmq.trace",
    ];
    let mut made: Vec<String> = (0..7).map(|_| keys::<1>(&mut watcher)[0].clone()).collect();
    let mut want = exchanges.map(|name| format!("exchange.created rmq-cli {name}"));
    assert_eq!(made[0], want[0]);
    made.sort_unstable();
    want.sort_unstable();
    assert_eq!(made, want);
    let metadata = r#"#{description => <<"d">>,tags => <<"a,b">>}"#;
    let want = FieldTable::new()
        .with("tags", "a,b")
        .with("description", "d")
        .with("user_who_performed_action", "rmq-cli")
        .with("cluster_state", FieldTable::new().with("warren@localhost", "running"))
        .with("tracing", false)
        .with("metadata", metadata)
        .with("default_queue_type", "undefined")
        .with("name", "v");
    expect(&mut watcher, "vhost.created", want);
    let all = ".*";
    ask(json!({
        "op": "set_permissions", "user": "guest", "vhost": "v", "configure": all, "write": all, "read": all,
    }));
    ask(json!({"op": "set_vhost_limits", "vhost": "v", "limits": {"max-queues": 4}}));
    ask(json!({
        "op": "set_policy", "vhost": "v", "name": "p", "pattern": "x", "definition": {"max-length": 1},
    }));
    ask(json!({"op": "trace_on", "vhost": "v"}));
    let _: [String; 4] = keys(&mut watcher);
    ask(json!({"op": "delete_vhost", "name": "v"}));
    assert_eq!(keys(&mut watcher), ["permission.deleted rmq-cli -"]);
    let mut gone: Vec<String> = (0..7).map(|_| keys::<1>(&mut watcher)[0].clone()).collect();
    let mut want = exchanges.map(|name| format!("exchange.deleted rmq-cli {name}"));
    gone.sort_unstable();
    want.sort_unstable();
    assert_eq!(gone, want);
    let want = [
        "vhost.deleted rmq-cli v",
        "parameter.cleared rmq-cli limits",
        "vhost.limits.cleared rmq-cli limits",
        "policy.cleared rmq-cli p",
        "vhost.down rmq-internal v",
    ];
    assert_eq!(keys(&mut watcher), want);
    watcher.silent();
}

#[test]
fn definitions_are_told_of_if_they_were_taken() {
    let server = Server::new();
    let (mut watcher, _client) = watched(&server);
    let bad = json!({
        "vhosts": [{"name": "v"}], "queues": [{"name": "q", "vhost": "v", "durable": true}],
        "bindings": [{"source": "x", "vhost": "v", "destination": "q", "destination_type": "queue", "routing_key": "k"}],
    });
    ask(&server, json!({"op": "import_definitions", "definitions": bad})).unwrap_err();
    watcher.silent();
    let good = json!({"vhosts": [{"name": "/", "tags": ["a"]}], "users": [{"name": "ann", "password_hash": ""}]});
    ask(&server, json!({"op": "import_definitions", "definitions": good})).unwrap();
    assert_eq!(keys(&mut watcher), ["user.created rmq-internal ann"]);
    let (key, headers) = event(&mut watcher);
    assert_eq!(key, "vhost.updated");
    let metadata = r#"#{description => <<>>,tags => [<<"a">>]}"#;
    assert_eq!(headers.get("metadata"), Some(&metadata.into()));
    assert_eq!(headers.get("tags"), Some(&FieldValue::Array(vec!["a".into()])));
    watcher.silent();
}

#[test]
fn a_binding_that_is_recovered_gets_what_happens_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    client.send(1, &queue::Declare { queue: "q", durable: true, ..Default::default() });
    server.sync(&news);
    client.skip::<queue::DeclareOk<'_>>();
    let exchange = "amq.rabbitmq.event";
    let routing_key = "user.#";
    let bind = queue::Bind { queue: "q", exchange, routing_key, ..Default::default() };
    client.send(1, &bind);
    server.sync(&news);
    client.skip::<queue::BindOk>();
    assert!(server.engine.borrow().is_watched());
    server.close();
    let (server, _news) = open(folder.path());
    let mut client = server.connect();
    // Its login is the first thing that it gets.
    assert_eq!(client.count("q"), 1);
    client.send(1, &queue::Delete { queue: "q", ..Default::default() });
    assert!(!server.engine.borrow().is_watched());
}

#[test]
fn nobody_may_publish_to_the_exchange_or_take_it_away() {
    let server = Server::new();
    let mut client = server.connect();
    let exchange = "amq.rabbitmq.event";
    let publish = basic::Publish { exchange, ..Default::default() };
    client.publish_with(&publish, &Default::default(), b"x");
    let text =
        format!("ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'");
    client.expect_channel_close(403, &text, basic::Publish::default());
    let mut client = server.connect();
    client.send(1, &exchange::Delete { exchange, ..Default::default() });
    let text = format!(
        "ACCESS_REFUSED - deletion of system exchange '{exchange}' in vhost '/' not allowed"
    );
    client.expect_channel_close(403, &text, exchange::Delete::default());
}
