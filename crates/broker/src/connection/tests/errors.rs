//! What clients do wrong, and the exact answers. The texts are those that RabbitMQ 3.10 gives.

use warren_amqp::frame;
use warren_amqp::method::{
    EncodeMethod, access, basic, channel, confirm, connection, exchange, queue, tx,
};
use warren_amqp::{BasicProperties, FieldTable};
use warren_reactor::testing::End;

use super::{Client, Server};

const DEFAULT: &str = "ACCESS_REFUSED - operation not permitted on the default exchange";

/// The channel is closed with this code and text because of `method`.
#[track_caller]
fn check<M: EncodeMethod + Clone>(method: M, code: u16, text: &str) {
    check_after(|_| {}, method, code, text);
}

#[track_caller]
fn check_after<M: EncodeMethod + Clone>(
    prepare: impl FnOnce(&mut Client),
    method: M,
    code: u16,
    text: &str,
) {
    let server = Server::new();
    let mut client = server.connect();
    prepare(&mut client);
    client.send(1, &method);
    client.expect_channel_close(code, text, method);
    // Everything is ignored until the client agrees; then the number is free.
    client.send(1, &basic::Ack { delivery_tag: 99, multiple: false });
    client.silent();
    client.send(1, &channel::CloseOk {});
    client.open_channel(1);
}

/// The connection is closed because of `method`.
#[track_caller]
fn check_hard<M: EncodeMethod + Clone>(number: u16, method: M, code: u16, text: &str) {
    let server = Server::new();
    let mut client = server.connect();
    client.send(number, &method);
    let info = method.info();
    client.expect_close(code, text, (info.class_id, info.method_id));
    client.send(0, &connection::CloseOk {});
    client.silent();
    assert_eq!(client.wire.closed(), Some(End::Graceful));
}

fn declare(queue: &str) -> queue::Declare<'_> {
    queue::Declare { queue, ..Default::default() }
}

#[test]
fn what_is_not_there() {
    let no_queue = "NOT_FOUND - no queue 'q' in vhost '/'";
    let no_exchange = "NOT_FOUND - no exchange 'x' in vhost '/'";
    check(queue::Declare { passive: true, ..declare("q") }, 404, no_queue);
    check(queue::Purge { queue: "q", ..Default::default() }, 404, no_queue);
    check(basic::Get { queue: "q", ..Default::default() }, 404, no_queue);
    check(basic::Consume { queue: "q", ..Default::default() }, 404, no_queue);
    let bind = queue::Bind { queue: "q", exchange: "amq.direct", ..Default::default() };
    check(bind, 404, no_queue);
    check(queue::Bind { queue: "q", exchange: "x", ..Default::default() }, 404, no_exchange);
    check(basic::Publish { exchange: "x", ..Default::default() }, 404, no_exchange);
    let bind = exchange::Bind { destination: "y", source: "x", ..Default::default() };
    check(bind, 404, no_exchange);
    let declare_exchange =
        exchange::Declare { exchange: "x", kind: "direct", passive: true, ..Default::default() };
    check(declare_exchange, 404, no_exchange);
    let unnamed = "NOT_FOUND - no previously declared queue";
    check(basic::Get::default(), 404, unnamed);
    check(queue::Purge::default(), 404, unnamed);
    let passive = queue::Declare { passive: true, ..declare("") };
    check(passive, 404, "NOT_FOUND - no queue '' in vhost '/'");
}

#[test]
fn what_may_be_missing() {
    let server = Server::new();
    let mut client = server.connect();
    client.send(1, &queue::Delete { queue: "q", ..Default::default() });
    client.expect(1, &queue::DeleteOk { message_count: 0 });
    client.send(1, &exchange::Delete { exchange: "x", ..Default::default() });
    client.expect(1, &exchange::DeleteOk {});
    client.send(1, &queue::Unbind { queue: "q", exchange: "x", ..Default::default() });
    client.expect(1, &queue::UnbindOk {});
    client.send(1, &exchange::Unbind { destination: "x", source: "y", ..Default::default() });
    client.expect(1, &exchange::UnbindOk {});
    client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: false });
    client.expect(1, &basic::CancelOk { consumer_tag: "c" });
    client.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    client.silent();
}

#[test]
fn what_is_nobodys_to_change() {
    let bind = queue::Bind { queue: "q", ..Default::default() };
    check(bind, 403, DEFAULT);
    check(queue::Unbind { queue: "q", ..Default::default() }, 403, DEFAULT);
    check(exchange::Delete::default(), 403, DEFAULT);
    check(exchange::Declare { kind: "direct", ..Default::default() }, 403, DEFAULT);
    let passive = exchange::Declare { kind: "direct", passive: true, ..Default::default() };
    check(passive, 403, DEFAULT);
    check(exchange::Bind { source: "amq.direct", ..Default::default() }, 403, DEFAULT);
    check(exchange::Bind { destination: "amq.direct", ..Default::default() }, 403, DEFAULT);
    let reserved = "name 'amq.mine' contains reserved prefix 'amq.*'";
    check(declare("amq.mine"), 403, &format!("ACCESS_REFUSED - queue {reserved}"));
    let mine = exchange::Declare { exchange: "amq.mine", kind: "topic", ..Default::default() };
    check(mine, 403, &format!("ACCESS_REFUSED - exchange {reserved}"));
    let system = exchange::Delete { exchange: "amq.topic", ..Default::default() };
    let text = "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed";
    check(system, 403, text);
    let internal =
        exchange::Declare { exchange: "x", kind: "fanout", internal: true, ..Default::default() };
    check_after(
        |client| {
            client.send(1, &internal);
            client.expect(1, &exchange::DeclareOk {});
        },
        basic::Publish { exchange: "x", ..Default::default() },
        403,
        "ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '/'",
    );
}

#[test]
fn what_is_declared_again_and_otherwise() {
    let prepare = |client: &mut Client| {
        client.send(1, &queue::Declare { durable: true, ..declare("q") });
        client.skip::<queue::DeclareOk<'_>>();
        let kind = "direct";
        client.send(1, &exchange::Declare { exchange: "x", kind, ..Default::default() });
        client.expect(1, &exchange::DeclareOk {});
    };
    let differs = |argument: &str, what: &str, received: &str, current: &str| {
        format!(
            "PRECONDITION_FAILED - inequivalent arg '{argument}' for {what} in vhost '/': received \
             '{received}' but current is '{current}'"
        )
    };
    let text = differs("durable", "queue 'q'", "false", "true");
    check_after(prepare, declare("q"), 406, &text);
    let text = differs("auto_delete", "queue 'q'", "true", "false");
    let again = queue::Declare { durable: true, auto_delete: true, ..declare("q") };
    check_after(prepare, again, 406, &text);
    let arguments = FieldTable::new().with("x-queue-type", "quorum");
    let again = queue::Declare { durable: true, arguments, ..declare("q") };
    let text = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received \
                the value 'quorum' of type 'longstr' but current is none";
    check_after(prepare, again, 406, text);
    let exchange = exchange::Declare { exchange: "x", kind: "direct", ..Default::default() };
    for (again, argument, received, current) in [
        (exchange::Declare { kind: "topic", ..exchange.clone() }, "type", "topic", "direct"),
        (exchange::Declare { durable: true, ..exchange.clone() }, "durable", "true", "false"),
        (exchange::Declare { internal: true, ..exchange.clone() }, "internal", "true", "false"),
        (
            exchange::Declare { auto_delete: true, ..exchange.clone() },
            "auto_delete",
            "true",
            "false",
        ),
    ] {
        check_after(prepare, again, 406, &differs(argument, "exchange 'x'", received, current));
    }
}

#[test]
fn what_is_another_connections() {
    let server = Server::new();
    let mut owner = server.connect();
    owner.send(1, &queue::Declare { exclusive: true, ..declare("q") });
    owner.skip::<queue::DeclareOk<'_>>();
    let text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be \
                originally declared on another connection or the exclusive property value does not match that \
                of the original declaration.";
    let mut other = server.connect();
    other.send(1, &queue::Declare { passive: true, ..declare("q") });
    other.expect_channel_close(405, text, declare("q"));
    let mut other = server.connect();
    other.send(1, &basic::Get { queue: "q", no_ack: true });
    other.expect_channel_close(405, text, basic::Get::default());
    let mut other = server.connect();
    other.send(1, &queue::Delete { queue: "q", ..Default::default() });
    other.expect_channel_close(405, text, queue::Delete::default());
    // The queue goes with its owner.
    owner.wire.lose();
    let mut other = server.connect();
    other.declare("q");
}

#[test]
fn what_is_in_use() {
    let busy = |client: &mut Client| {
        client.declare("q");
        client.publish("q", b"x");
        client.consume(1, "q", "c");
        client.delivery();
    };
    let delete = queue::Delete { queue: "q", if_unused: true, ..Default::default() };
    check_after(busy, delete, 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use");
    let full = |client: &mut Client| {
        client.declare("q");
        client.publish("q", b"x");
    };
    let delete = queue::Delete { queue: "q", if_empty: true, ..Default::default() };
    check_after(full, delete, 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty");
    let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    let exclusive = basic::Consume { queue: "q", exclusive: true, ..Default::default() };
    check_after(busy, exclusive, 403, text);
    let alone = |client: &mut Client| {
        client.declare("q");
        let consumer_tag = "c";
        let exclusive =
            basic::Consume { queue: "q", exclusive: true, consumer_tag, ..Default::default() };
        client.send(1, &exclusive);
        client.expect(1, &basic::ConsumeOk { consumer_tag });
    };
    check_after(alone, basic::Consume { queue: "q", ..Default::default() }, 403, text);
}

#[test]
fn tags_that_are_unknown() {
    let text = "PRECONDITION_FAILED - unknown delivery tag 7";
    check(basic::Ack { delivery_tag: 7, multiple: false }, 406, text);
    check(basic::Ack { delivery_tag: 7, multiple: true }, 406, text);
    check(basic::Nack { delivery_tag: 7, multiple: false, requeue: true }, 406, text);
    check(basic::Reject { delivery_tag: 7, requeue: true }, 406, text);
    let text = "PRECONDITION_FAILED - unknown delivery tag 0";
    check(basic::Ack { delivery_tag: 0, multiple: false }, 406, text);
}

#[test]
fn modes_that_do_not_mix() {
    let in_tx = |client: &mut Client| {
        client.send(1, &tx::Select {});
        client.expect(1, &tx::SelectOk {});
    };
    let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    check_after(in_tx, confirm::Select { no_wait: false }, 406, text);
    let confirming = |client: &mut Client| {
        client.send(1, &confirm::Select { no_wait: true });
        client.silent();
    };
    let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    check_after(confirming, tx::Select {}, 406, text);
    let text = "PRECONDITION_FAILED - channel is not transactional";
    check(tx::Commit {}, 406, text);
    check(tx::Rollback {}, 406, text);
}

#[test]
fn queue_types() {
    let with = |kind: &str| FieldTable::new().with("x-queue-type", kind);
    let text = "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': \"unsupported \
                queue type 'odd'\"";
    check(queue::Declare { arguments: with("odd"), ..declare("q") }, 406, text);
    let arguments = FieldTable::new().with("x-queue-type", 5);
    let text = "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': \
                {unacceptable_type,signedint}";
    check(queue::Declare { arguments, ..declare("q") }, 406, text);
    let text = "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'q' in vhost '/'";
    check(queue::Declare { arguments: with("quorum"), ..declare("q") }, 406, text);
    let server = Server::new();
    let mut client = server.connect();
    for (queue, kind) in [("c", "classic"), ("q", "quorum")] {
        client.send(1, &queue::Declare { durable: true, arguments: with(kind), ..declare(queue) });
        client.skip::<queue::DeclareOk<'_>>();
    }
}

#[test]
fn what_ends_the_connection() {
    let exchange = exchange::Declare { exchange: "x", kind: "odd", ..Default::default() };
    check_hard(1, exchange, 503, "COMMAND_INVALID - unknown exchange type 'odd'");
    check_hard(1, channel::Open {}, 504, "CHANNEL_ERROR - second 'channel.open' seen");
    check_hard(7, basic::Get::default(), 504, "CHANNEL_ERROR - expected 'channel.open'");
    check_hard(1, basic::GetEmpty {}, 503, "COMMAND_INVALID - unimplemented method");
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    check_hard(0, declare("q"), 504, text);
    check_hard(0, connection::CloseOk {}, 504, text);
    let qos = basic::Qos { prefetch_size: 10, ..Default::default() };
    check_hard(1, qos, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)");
    let recover = basic::Recover { requeue: false };
    check_hard(1, recover, 540, "NOT_IMPLEMENTED - requeue=false");
}

#[test]
fn what_is_no_frame_or_no_method() {
    #[track_caller]
    fn check(bytes: &[u8], code: u16, text: &str, ids: (u16, u16)) {
        let mut client = Server::new().connect();
        client.wire.feed(bytes);
        client.expect_close(code, text, ids);
        client.silent();
    }
    let too_large = "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,200000,131064}";
    check(&frame::frame_header(1, 1, 200_000), 501, too_large, (0, 0));
    let bad_end = "FRAME_ERROR - type 8, all octets = <<>>: {invalid_frame_end_marker,0}";
    check(b"\x08\0\0\0\0\0\0\0", 501, bad_end, (0, 0));
    let heartbeat = "UNEXPECTED_FRAME - type 8, all octets = <<>>";
    check(b"\x08\0\x01\0\0\0\0\xce", 505, heartbeat, (0, 0));
    let short = "FRAME_ERROR - cannot decode <<0,0>>";
    check(b"\x01\0\x01\0\0\0\x06\0\x3c\0\x46\0\0\xce", 501, short, (60, 70));
    let no_text = "FRAME_ERROR - Malformed UTF-8 in shortstr";
    check(b"\x01\0\x01\0\0\0\x09\0\x3c\0\x46\0\0\x01\xff\0\xce", 501, no_text, (0, 0));
    let on_channel_0 = "UNEXPECTED_FRAME - type 3, all octets = <<\"x\">>";
    check(b"\x03\0\0\0\0\0\x01x\xce", 505, on_channel_0, (0, 0));
    let stray = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    check(b"\x03\0\x01\0\0\0\x01x\xce", 505, stray, (0, 0));
}

#[test]
fn contents_out_of_step() {
    #[track_caller]
    fn check(rest: impl FnOnce(&mut Vec<u8>), text: &str) {
        let mut client = Server::new().connect();
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, 1, &basic::Publish::default());
        rest(&mut bytes);
        client.wire.feed(&bytes);
        client.expect_close(505, &format!("UNEXPECTED_FRAME - {text}"), (60, 40));
    }
    let text = "expected content header for class 60, got non content header frame instead";
    check(|bytes| frame::write_method(bytes, 1, &basic::Get::default()), text);
    check(|bytes| bytes.extend_from_slice(b"\x03\0\x01\0\0\0\x01x\xce"), text);
    let text = "expected content body, got non content body frame instead";
    let header = |bytes: &mut Vec<u8>| frame::write_content_header(bytes, 1, 60, &[0, 0], 5);
    check(
        |bytes| {
            header(bytes);
            header(bytes);
        },
        text,
    );
    let text = "expected content header for class 60, got one for class 50 instead";
    check(|bytes| frame::write_content_header(bytes, 1, 50, &[0, 0], 5), text);
}

#[test]
fn properties_that_cannot_be() {
    #[track_caller]
    fn check(properties: &BasicProperties, text: &str) {
        let mut client = Server::new().connect();
        client.publish_with(&basic::Publish::default(), properties, b"x");
        let text = format!("PRECONDITION_FAILED - {text}");
        client.expect_channel_close(406, &text, basic::Publish::default());
    }
    check(&BasicProperties::new().with_expiration("soon"), "invalid expiration 'soon': no_integer");
    check(
        &BasicProperties::new().with_user_id("somebody"),
        "user_id property set to 'somebody' but authenticated user was 'guest'",
    );
    check(
        &BasicProperties::new().with_header("CC", "key"),
        "invalid message: {unacceptable_type_in_header,\"CC\",longstr}",
    );
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_comes() {
    let mut client = Server::new().connect();
    let mut bytes = Vec::new();
    frame::write_method(&mut bytes, 1, &basic::Publish::default());
    frame::write_content_header(&mut bytes, 1, 60, &[0, 0], 200 << 20);
    client.wire.feed(&bytes);
    let text =
        "PRECONDITION_FAILED - message size 209715200 is larger than configured max size 134217728";
    client.expect_channel_close(406, text, basic::Publish::default());
}

#[test]
fn a_text_too_long_is_cut() {
    let name = "q".repeat(255);
    let text = format!("NOT_FOUND - no queue '{}...", "q".repeat(252 - 22));
    check(queue::Declare { passive: true, ..declare(&name) }, 404, &text);
}

#[test]
fn what_is_answered_though_it_means_nothing_here() {
    let mut client = Server::new().connect();
    client.send(1, &access::Request::default());
    client.expect(1, &access::RequestOk { ticket: 1 });
    client.send(1, &channel::Flow { active: true });
    client.expect(1, &channel::FlowOk { active: true });
    client.send(0, &connection::UpdateSecret { new_secret: b"s", reason: "r" });
    client.expect(0, &connection::UpdateSecretOk {});
}
