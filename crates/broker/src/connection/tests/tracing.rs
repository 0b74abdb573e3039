//! The firehose, through connections. The headers are those of RabbitMQ 3.10.8.

use serde_json::json;
use warren_amqp::method::{basic, queue};
use warren_amqp::{BasicProperties, FieldTable, FieldValue, Method};

use super::tenancy::ask;
use super::{Client, Seen, Server};

/// A client with a queue that gets what `exchange` says.
pub(super) fn watch(server: &Server, exchange: &str) -> Client {
    let mut watcher = server.connect();
    watcher.declare("watch");
    let bind = queue::Bind { queue: "watch", exchange, routing_key: "#", ..queue::Bind::default() };
    watcher.send(1, &bind);
    watcher.expect(1, &queue::BindOk {});
    let consume = basic::Consume { queue: "watch", no_ack: true, ..Default::default() };
    watcher.send(1, &consume);
    watcher.skip::<basic::ConsumeOk<'_>>();
    watcher
}

/// The next copy: routing key, properties, body.
#[track_caller]
pub(super) fn copy(watcher: &mut Client) -> (String, BasicProperties, Vec<u8>) {
    let Some(Seen::Method(_, payload)) = watcher.next() else { panic!("no copy") };
    let Ok(Method::BasicDeliver(deliver)) = Method::decode(&payload) else { panic!("no delivery") };
    let key = deliver.routing_key.to_owned();
    let (properties, body) = watcher.content();
    (key, properties, body)
}

fn texts(texts: &[&str]) -> FieldValue {
    FieldValue::Array(texts.iter().map(|text| (*text).into()).collect())
}

fn headers(exchange: &str, keys: &[&str], properties: FieldTable) -> FieldTable {
    FieldTable::new()
        .with("exchange_name", exchange)
        .with("routing_keys", texts(keys))
        .with("properties", FieldValue::Table(properties))
        .with("node", "warren@localhost")
}

fn by_guest(headers: FieldTable) -> FieldTable {
    headers
        .with("vhost", "/")
        .with("connection", "memory -> memory")
        .with("channel", FieldValue::I32(1))
        .with("user", "guest")
}

fn set_tracing(server: &Server, op: &str) {
    ask(server, json!({"op": op})).unwrap();
}

#[test]
fn publishes_and_deliveries_are_copied_while_tracing_is_on() {
    let server = Server::new();
    let mut watcher = watch(&server, "amq.rabbitmq.trace");
    let mut client = server.connect();
    client.declare("w");
    let bind =
        queue::Bind { queue: "w", exchange: "amq.direct", routing_key: "k", ..Default::default() };
    client.send(1, &bind);
    client.expect(1, &queue::BindOk {});
    client.publish("w", b"not traced");
    assert_eq!(client.get("w").as_deref(), Some("not traced"));
    watcher.silent();

    set_tracing(&server, "trace_on");
    let sent = FieldTable::new()
        .with("h", FieldValue::I32(1))
        .with("CC", texts(&["k2"]))
        .with("BCC", texts(&["z"]));
    let properties = BasicProperties {
        content_type: Some("text/plain".into()),
        headers: Some(sent),
        delivery_mode: Some(2),
        priority: Some(3),
        correlation_id: Some("c".into()),
        timestamp: Some(5),
        expiration: Some("60000".into()),
        kind: Some("t".into()),
        ..BasicProperties::new()
    };
    let publish = basic::Publish { exchange: "amq.direct", routing_key: "k", ..Default::default() };
    client.publish_with(&publish, &properties, b"body");
    let seen = FieldTable::new()
        .with("type", "t")
        .with("timestamp", FieldValue::I32(5))
        .with("expiration", "60000")
        .with("correlation_id", "c")
        .with("priority", FieldValue::I32(3))
        .with("delivery_mode", FieldValue::I32(2))
        .with("headers", FieldTable::new().with("h", FieldValue::I32(1)).with("CC", texts(&["k2"])))
        .with("content_type", "text/plain");
    let want = by_guest(headers("amq.direct", &["k", "k2", "z"], seen.clone()))
        .with("routed_queues", texts(&["w"]));
    let want = BasicProperties { headers: Some(want), ..BasicProperties::new() };
    assert_eq!(copy(&mut watcher), ("publish.amq.direct".into(), want, b"body".to_vec()));

    for redelivered in [0, 1] {
        client.send(1, &basic::Get { queue: "w", no_ack: redelivered == 1 });
        client.skip::<basic::GetOk<'_>>();
        client.content();
        let want = headers("amq.direct", &["k", "k2"], seen.clone())
            .with("redelivered", FieldValue::I32(redelivered));
        let want = BasicProperties { headers: Some(by_guest(want)), ..BasicProperties::new() };
        assert_eq!(copy(&mut watcher), ("deliver.w".into(), want, b"body".to_vec()));
        if redelivered == 0 {
            client.send(1, &basic::Reject { delivery_tag: 2, requeue: true });
        }
    }

    set_tracing(&server, "trace_off");
    client.publish("w", b"not traced");
    client.turn();
    watcher.silent();
}

#[test]
fn what_reaches_no_queue_is_copied_too() {
    let server = Server::new();
    let mut watcher = watch(&server, "amq.rabbitmq.trace");
    set_tracing(&server, "trace_on");
    let mut client = server.connect();
    client.publish("nowhere", b"lost");
    let (key, properties, body) = copy(&mut watcher);
    assert_eq!((key.as_str(), &body[..]), ("publish.", &b"lost"[..]));
    let want = by_guest(headers("", &["nowhere"], FieldTable::new()))
        .with("routed_queues", texts(&["nowhere"]));
    assert_eq!(properties.headers, Some(want));
    watcher.silent();
}

#[test]
fn consumers_are_told_of_too_and_copies_are_not_copied() {
    let server = Server::new();
    let mut watcher = watch(&server, "amq.rabbitmq.trace");
    set_tracing(&server, "trace_on");
    let mut client = server.connect();
    client.declare("w");
    client.consume(1, "w", "c");
    client.publish("w", b"body");
    assert_eq!(client.delivery().3, "body");
    assert_eq!(copy(&mut watcher).0, "publish.");
    assert_eq!(copy(&mut watcher).0, "deliver.w");
    watcher.silent();
}

#[test]
fn a_virtual_host_is_traced_for_itself() {
    let server = Server::new();
    let mut watcher = watch(&server, "amq.rabbitmq.trace");
    ask(&server, json!({"op": "add_vhost", "name": "v"})).unwrap();
    ask(&server, json!({"op": "trace_on", "vhost": "v"})).unwrap();
    let mut client = server.connect();
    client.publish("nowhere", b"");
    client.turn();
    watcher.silent();
    let missing = ask(&server, json!({"op": "trace_on", "vhost": "w"}));
    assert_eq!(missing, Err("Virtual host 'w' does not exist".into()));
}
