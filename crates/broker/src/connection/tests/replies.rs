//! Direct reply-to.

use warren_amqp::BasicProperties;
use warren_amqp::method::{basic, channel, queue};

use super::{Client, Server};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

fn take_replies() -> basic::Consume<'static> {
    basic::Consume { queue: REPLY_TO, consumer_tag: "replies", no_ack: true, ..Default::default() }
}

fn ask(client: &mut Client) {
    let properties =
        BasicProperties { reply_to: Some(REPLY_TO.into()), ..BasicProperties::default() };
    let publish = basic::Publish { routing_key: "rpc", ..Default::default() };
    client.publish_with(&publish, &properties, b"question");
}

/// The name that stands in the next question.
fn asked(client: &mut Client) -> String {
    client.send(1, &basic::Get { queue: "rpc", no_ack: true });
    client.skip::<basic::GetOk<'_>>();
    client.content().0.reply_to.unwrap()
}

/// Who has asked, who is to answer, and to what name.
fn question() -> (Server, Client, Client, String) {
    let server = Server::new();
    let (mut asker, mut answerer) = (server.connect(), server.connect());
    answerer.declare("rpc");
    asker.send(1, &take_replies());
    asker.expect(1, &basic::ConsumeOk { consumer_tag: "replies" });
    ask(&mut asker);
    let name = asked(&mut answerer);
    (server, asker, answerer, name)
}

#[test]
fn an_answer_goes_straight_to_the_channel_that_asked() {
    let (_server, mut asker, mut answerer, name) = question();
    assert!(name.starts_with("amq.rabbitmq.reply-to."), "{name}");
    answerer.send(1, &queue::Declare { queue: &name, passive: true, ..Default::default() });
    answerer.expect(1, &queue::DeclareOk { queue: &name, message_count: 0, consumer_count: 1 });
    answerer.publish(&name, b"answer");
    answerer.silent();
    let deliver = basic::Deliver {
        consumer_tag: "replies",
        delivery_tag: 1,
        redelivered: false,
        exchange: "",
        routing_key: &name,
    };
    asker.expect(1, &deliver);
    assert_eq!(asker.content().1, b"answer");
    // To a publisher that insists it is no queue, and is delivered all the same.
    let publish = basic::Publish { routing_key: &name, mandatory: true, ..Default::default() };
    answerer.publish_with(&publish, &BasicProperties::new(), b"more");
    let text = "NO_ROUTE";
    answerer.expect(
        1,
        &basic::Return { reply_code: 312, reply_text: text, exchange: "", routing_key: &name },
    );
    assert_eq!(answerer.content().1, b"more");
    assert_eq!(asker.delivery().3, "more");
}

#[test]
fn when_the_asker_has_gone_its_name_has_gone() {
    let (_server, mut asker, mut answerer, name) = question();
    asker.send(1, &basic::Cancel { consumer_tag: "replies", no_wait: false });
    asker.expect(1, &basic::CancelOk { consumer_tag: "replies" });
    answerer.publish(&name, b"late");
    asker.silent();
    asker.send(1, &take_replies());
    asker.expect(1, &basic::ConsumeOk { consumer_tag: "replies" });
    ask(&mut asker);
    let name = asked(&mut answerer);
    asker.send(1, &channel::Close { reply_code: 200, ..Default::default() });
    asker.expect(1, &channel::CloseOk {});
    let declare = queue::Declare { queue: &name, passive: true, ..Default::default() };
    answerer.send(1, &declare);
    let text = format!("NOT_FOUND - no queue '{name}' in vhost '/'");
    answerer.expect_channel_close(404, &text, queue::Declare::default());
}

#[test]
fn what_cannot_be() {
    let refused = |text: &str, prepare: &dyn Fn(&mut Client)| {
        let server = Server::new();
        let mut client = server.connect();
        client.declare("rpc");
        prepare(&mut client);
        let text = format!("PRECONDITION_FAILED - {text}");
        let seen = client.next();
        client.frames.push_front(seen.unwrap());
        match text.contains("fast") {
            true => client.expect_channel_close(406, &text, basic::Publish::default()),
            false => client.expect_channel_close(406, &text, basic::Consume::default()),
        }
    };
    refused("fast reply consumer does not exist", &ask);
    refused("reply consumer cannot acknowledge", &|client| {
        client.send(1, &basic::Consume { no_ack: false, ..take_replies() });
    });
    refused("reply consumer already set", &|client| {
        client.send(1, &take_replies());
        client.expect(1, &basic::ConsumeOk { consumer_tag: "replies" });
        client.send(1, &basic::Consume { consumer_tag: "other", ..take_replies() });
    });
}
