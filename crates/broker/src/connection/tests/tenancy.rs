//! Users and what they may do, through connections.

use serde_json::{Value, json};
use warren_amqp::BasicProperties;
use warren_amqp::method::{EncodeMethod, basic, channel, connection, exchange, queue};
use warren_reactor::PeerAddr;

use super::{Client, Server};

pub(super) fn ask(server: &Server, request: Value) -> Result<Value, String> {
    let request = serde_json::from_value(request).unwrap();
    server.administer(request).map_err(|error| error.to_string())
}

/// A user with permissions, connected.
fn connect(server: &Server, name: &str, permissions: [&str; 3]) -> Client {
    ask(server, json!({"op": "add_user", "name": name, "password": "secret"})).unwrap();
    permit(server, name, permissions);
    let mut client = log_in(server, name);
    client.tune(0);
    client.open_channel(1);
    client
}

fn permit(server: &Server, name: &str, [configure, write, read]: [&str; 3]) {
    let request = json!({
        "op": "set_permissions", "user": name, "configure": configure, "write": write, "read": read,
    });
    ask(server, request).unwrap();
}

fn log_in(server: &Server, name: &str) -> Client {
    let mut client = server.dial(PeerAddr::Memory);
    client.log_in("PLAIN", format!("\0{name}\0secret").as_bytes());
    client
}

fn declare(queue: &str) -> queue::Declare<'_> {
    queue::Declare { queue, ..Default::default() }
}

/// A method is refused, and its channel closed; it is opened again.
#[track_caller]
fn refused<M: EncodeMethod>(client: &mut Client, method: M, what: &str) {
    let text = format!("ACCESS_REFUSED - access to {what} refused for user 'ann'");
    client.expect_channel_close(403, &text, method);
    client.send(1, &channel::CloseOk {});
    client.open_channel(1);
}

fn publish(client: &mut Client, exchange: &str, routing_key: &str) {
    let publish = basic::Publish { exchange, routing_key, ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new(), b"");
}

#[test]
fn each_method_needs_its_permission() {
    let server = Server::new();
    let mut client = connect(&server, "ann", ["^mine", "^mine", "^mine"]);
    client.send(1, &declare("mine"));
    client.skip::<queue::DeclareOk<'_>>();
    client.send(1, &declare("yours"));
    refused(&mut client, declare(""), "queue 'yours' in vhost '/'");
    let purge = queue::Purge { queue: "yours", ..Default::default() };
    client.send(1, &purge);
    refused(&mut client, purge, "queue 'yours' in vhost '/'");
    let get = basic::Get { queue: "yours", ..Default::default() };
    client.send(1, &get);
    refused(&mut client, get, "queue 'yours' in vhost '/'");
    let consume = basic::Consume { queue: "yours", ..Default::default() };
    client.send(1, &consume);
    refused(&mut client, consume, "queue 'yours' in vhost '/'");
    let delete = queue::Delete { queue: "yours", ..Default::default() };
    client.send(1, &delete);
    refused(&mut client, delete, "queue 'yours' in vhost '/'");
    let bind = |queue| queue::Bind { queue, exchange: "amq.direct", ..Default::default() };
    client.send(1, &bind("yours"));
    refused(&mut client, bind(""), "queue 'yours' in vhost '/'");
    client.send(1, &bind("mine"));
    refused(&mut client, bind(""), "exchange 'amq.direct' in vhost '/'");
    let delete = exchange::Delete { exchange: "yours", ..Default::default() };
    client.send(1, &delete);
    refused(&mut client, delete, "exchange 'yours' in vhost '/'");
}

#[test]
fn publishing_is_checked_again_when_permissions_change() {
    let server = Server::new();
    let mut client = connect(&server, "ann", ["", "^amq\\.default$", ""]);
    publish(&mut client, "", "nowhere");
    permit(&server, "ann", ["", "", ""]);
    publish(&mut client, "", "nowhere");
    refused(&mut client, basic::Publish::default(), "exchange 'amq.default' in vhost '/'");
}

#[test]
fn topics_are_checked_where_they_are_limited() {
    let server = Server::new();
    let mut client = connect(&server, "ann", ["", "", ".*"]);
    permit(&server, "ann", ["", ".*", ""]);
    let request = json!({
        "op": "set_topic_permissions", "user": "ann", "exchange": "amq.topic", "write": "^{username}\\.", "read": "",
    });
    ask(&server, request).unwrap();
    publish(&mut client, "amq.topic", "ann.x");
    publish(&mut client, "amq.direct", "bob.x");
    publish(&mut client, "amq.topic", "bob.x");
    refused(
        &mut client,
        basic::Publish::default(),
        "topic 'bob.x' in exchange 'amq.topic' in vhost '/'",
    );
}

#[test]
fn a_user_without_permissions_opens_no_virtual_host() {
    let server = Server::new();
    ask(&server, json!({"op": "add_user", "name": "ann", "password": "secret"})).unwrap();
    let mut client = log_in(&server, "ann");
    client.answer_tune(0);
    client.send(0, &connection::Open { virtual_host: "/" });
    let text = "NOT_ALLOWED - access to vhost '/' refused for user 'ann'";
    client.expect_close(530, text, (10, 40));
}

#[test]
fn limits_of_users_and_virtual_hosts_hold() {
    let server = Server::new();
    let _first = connect(&server, "ann", ["", "", ""]);
    let limits = json!({"max-connections": 1, "max-channels": 1});
    ask(&server, json!({"op": "set_user_limits", "name": "ann", "limits": limits})).unwrap();
    let mut second = log_in(&server, "ann");
    second.answer_tune(0);
    second.send(0, &connection::Open { virtual_host: "/" });
    let text =
        "NOT_ALLOWED - connection refused for user 'ann': user connection limit (1) is reached";
    second.expect_close(530, text, (10, 40));
    ask(&server, json!({"op": "set_vhost_limits", "limits": {"max-queues": 0}})).unwrap();
    let mut guest = server.connect();
    guest.send(1, &declare("q"));
    let text =
        "PRECONDITION_FAILED - cannot declare queue 'q': queue limit in vhost '/' (0) is reached";
    guest.expect_channel_close(406, text, declare(""));
}

#[test]
fn deleting_a_user_closes_its_connections() {
    let server = Server::new();
    let mut client = connect(&server, "ann", ["", "", ""]);
    ask(&server, json!({"op": "delete_user", "name": "ann"})).unwrap();
    client.expect_close(320, "CONNECTION_FORCED - user 'ann' is deleted", (0, 0));
    let again = ask(&server, json!({"op": "delete_user", "name": "ann"}));
    assert_eq!(again, Err("User 'ann' does not exist".into()));
}

#[test]
fn definitions_go_in_whole_or_not_at_all() {
    let server = Server::new();
    let definitions = json!({
        "users": [{"name": "ann", "password_hash": "", "tags": "management,x", "limits": []}],
        "vhosts": [{"name": "/", "metadata": {"description": "d", "tags": []}, "limits": []}],
        "permissions": [{"user": "ann", "vhost": "/", "configure": "", "write": "", "read": ""}],
        "policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"max-length": 5}}],
        "queues": [{"name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}],
        "exchanges": [{"name": "x", "vhost": "/", "type": "topic"}],
        "bindings": [{
            "source": "x", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "#",
        }],
        "something": "else",
    });
    let mut wrong = definitions.clone();
    wrong["bindings"][0]["destination"] = "elsewhere".into();
    let before = ask(&server, json!({"op": "export_definitions"})).unwrap();
    let error = ask(&server, json!({"op": "import_definitions", "definitions": wrong}));
    let text = "binding from exchange 'x' to queue 'elsewhere': NOT_FOUND - no queue 'elsewhere' in vhost '/'";
    assert_eq!(error, Err(text.into()));
    assert_eq!(ask(&server, json!({"op": "export_definitions"})).unwrap(), before);
    for _ in 0..2 {
        let import = json!({"op": "import_definitions", "definitions": definitions});
        ask(&server, import).unwrap();
    }
    let after = ask(&server, json!({"op": "export_definitions"})).unwrap();
    for (list, count) in [
        ("users", 2),
        ("permissions", 2),
        ("policies", 1),
        ("queues", 1),
        ("exchanges", 1),
        ("bindings", 1),
    ] {
        assert_eq!(after[list].as_array().unwrap().len(), count, "{list}");
    }
    let other = Server::new();
    ask(&other, json!({"op": "import_definitions", "definitions": after})).unwrap();
    assert_eq!(ask(&other, json!({"op": "export_definitions"})).unwrap(), after);
}

/// A connection of `guest` to a virtual host, and its channel 1.
fn open_vhost(server: &Server, vhost: &str) -> Client {
    let mut client = server.dial(PeerAddr::Memory);
    client.log_in("PLAIN", b"\0guest\0guest");
    client.answer_tune(0);
    client.send(0, &connection::Open { virtual_host: vhost });
    client.expect(0, &connection::OpenOk {});
    client.open_channel(1);
    client
}

fn add_vhost(server: &Server, vhost: &str) {
    ask(server, json!({"op": "add_vhost", "name": vhost})).unwrap();
    let request = json!({
        "op": "set_permissions", "user": "guest", "vhost": vhost,
        "configure": ".*", "write": ".*", "read": ".*",
    });
    ask(server, request).unwrap();
}

#[test]
fn virtual_hosts_share_no_names() {
    let server = Server::new();
    add_vhost(&server, "prod");
    let mut root = server.connect();
    let mut prod = open_vhost(&server, "prod");
    root.send(1, &declare("q"));
    root.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
    let passive = queue::Declare { queue: "q", passive: true, ..Default::default() };
    let text = "NOT_FOUND - no queue 'q' in vhost 'prod'";
    prod.send(1, &passive);
    prod.expect_channel_close(404, text, passive);
    prod.send(1, &channel::CloseOk {});
    prod.open_channel(1);
    prod.send(1, &declare("q"));
    prod.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
    // Each has the exchanges that all have, and its own default exchange.
    publish(&mut prod, "", "q");
    for (client, messages) in [(&mut root, 0), (&mut prod, 1)] {
        client.send(1, &declare("q"));
        client.expect(
            1,
            &queue::DeclareOk { queue: "q", message_count: messages, consumer_count: 0 },
        );
        let declare = exchange::Declare {
            exchange: "amq.topic",
            kind: "topic",
            durable: true,
            ..Default::default()
        };
        client.send(1, &declare);
        client.expect(1, &exchange::DeclareOk {});
    }
    let rows = ask(&server, json!({"op": "list_queues", "vhost": "prod"})).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["messages"], 1);
}

#[test]
fn deleting_a_virtual_host_closes_its_connections_and_deletes_what_is_in_it() {
    let server = Server::new();
    add_vhost(&server, "prod");
    let mut prod = open_vhost(&server, "prod");
    prod.send(1, &declare("q"));
    prod.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
    ask(&server, json!({"op": "delete_vhost", "name": "prod"})).unwrap();
    prod.expect_close(320, "CONNECTION_FORCED - vhost 'prod' is deleted", (0, 0));
    let mut late = server.dial(PeerAddr::Memory);
    late.log_in("PLAIN", b"\0guest\0guest");
    late.answer_tune(0);
    late.send(0, &connection::Open { virtual_host: "prod" });
    late.expect_close(530, "NOT_ALLOWED - vhost prod not found", (10, 40));
    assert_eq!(ask(&server, json!({"op": "list_queues"})).unwrap(), json!([]));
    // A new one of that name is empty, and nobody has permissions in it.
    add_vhost(&server, "prod");
    let mut again = open_vhost(&server, "prod");
    let passive = queue::Declare { queue: "q", passive: true, ..Default::default() };
    again.send(1, &passive);
    again.expect_channel_close(404, "NOT_FOUND - no queue 'q' in vhost 'prod'", passive);
}

#[test]
fn an_import_that_fails_leaves_no_virtual_host_behind() {
    let server = Server::new();
    let definitions = json!({
        "vhosts": [{"name": "prod"}],
        "queues": [{"name": "q", "vhost": "prod", "arguments": {}}],
        "bindings": [{
            "source": "x", "vhost": "prod", "destination": "q", "destination_type": "queue", "routing_key": "",
        }],
    });
    let error = ask(&server, json!({"op": "import_definitions", "definitions": definitions}));
    let text =
        "binding from exchange 'x' to queue 'q': NOT_FOUND - no exchange 'x' in vhost 'prod'";
    assert_eq!(error, Err(text.into()));
    assert_eq!(ask(&server, json!({"op": "list_vhosts"})).unwrap().as_array().unwrap().len(), 1);
    assert_eq!(ask(&server, json!({"op": "list_queues"})).unwrap(), json!([]));
    let mut whole = definitions.clone();
    whole["bindings"][0]["source"] = "amq.direct".into();
    ask(&server, json!({"op": "import_definitions", "definitions": whole})).unwrap();
    let exported = ask(&server, json!({"op": "export_definitions", "vhost": "prod"})).unwrap();
    assert_eq!(exported["bindings"][0]["source"], "amq.direct");
    assert_eq!(exported["queues"][0]["name"], "q");
}
