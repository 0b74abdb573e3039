//! Acknowledgements, redelivery, transactions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use warren_amqp::method::{basic, channel, queue, tx};

use super::{Client, Server};

fn ready(count: usize) -> (Server, Client) {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    for number in 0..count {
        client.publish("q", number.to_string().as_bytes());
    }
    (server, client)
}

#[test]
fn what_is_given_back_comes_again_in_its_old_order_and_marked() {
    let (_server, mut client) = ready(4);
    client.consume(1, "q", "c");
    assert_eq!(client.bodies().len(), 4);
    client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
    client.send(1, &basic::Nack { delivery_tag: 3, multiple: true, requeue: true });
    client.open_channel(2);
    client.consume(2, "q", "d");
    for (tag, body) in [(1, "0"), (2, "1"), (3, "2")] {
        assert_eq!(client.delivery(), ("d".into(), tag, true, body.into()));
    }
    client.silent();
}

#[test]
fn a_channel_that_closes_gives_everything_back() {
    let (_server, mut client) = ready(3);
    client.open_channel(2);
    client.consume(2, "q", "c");
    assert_eq!(client.bodies().len(), 3);
    client.send(2, &basic::Ack { delivery_tag: 2, multiple: false });
    client.send(2, &channel::Close { reply_code: 200, ..Default::default() });
    client.expect(2, &channel::CloseOk {});
    assert_eq!(client.count("q"), 2);
    client.consume(1, "q", "d");
    assert_eq!(client.delivery(), ("d".into(), 1, true, "0".into()));
    assert_eq!(client.delivery(), ("d".into(), 2, true, "2".into()));
}

#[test]
fn a_connection_that_dies_gives_everything_back() {
    let (server, mut client) = ready(2);
    let mut doomed = server.connect();
    doomed.consume(1, "q", "c");
    assert_eq!(doomed.bodies().len(), 2);
    doomed.wire.lose();
    client.consume(1, "q", "d");
    assert_eq!(client.delivery(), ("d".into(), 1, true, "0".into()));
    assert_eq!(client.delivery(), ("d".into(), 2, true, "1".into()));
}

#[test]
fn rejecting_drops_and_recovering_repeats() {
    let (_server, mut client) = ready(3);
    client.consume(1, "q", "c");
    assert_eq!(client.bodies(), ["0", "1", "2"]);
    client.send(1, &basic::Reject { delivery_tag: 1, requeue: false });
    client.send(1, &basic::Recover { requeue: true });
    client.expect(1, &basic::RecoverOk {});
    assert_eq!(client.delivery(), ("c".into(), 4, true, "1".into()));
    assert_eq!(client.delivery(), ("c".into(), 5, true, "2".into()));
    client.silent();
}

#[test]
fn a_purge_counts_what_is_ready_only() {
    let (_server, mut client) = ready(5);
    client.send(1, &basic::Get { queue: "q", no_ack: false });
    client.skip::<basic::GetOk<'_>>();
    client.content();
    client.send(1, &queue::Purge { queue: "q", no_wait: false });
    client.expect(1, &queue::PurgeOk { message_count: 4 });
    client.send(1, &basic::Reject { delivery_tag: 1, requeue: true });
    assert_eq!(client.count("q"), 1);
}

#[test]
fn a_transaction_happens_at_its_commit() {
    let (_server, mut client) = ready(2);
    client.send(1, &tx::Select {});
    client.expect(1, &tx::SelectOk {});
    client.send(1, &basic::Get { queue: "q", no_ack: false });
    client.skip::<basic::GetOk<'_>>();
    client.content();
    client.publish("q", b"new");
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    assert_eq!(client.count("q"), 1);
    client.send(1, &tx::Rollback {});
    client.expect(1, &tx::RollbackOk {});
    assert_eq!(client.count("q"), 1);
    // The delivery is unsettled again.
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.publish("q", b"new");
    client.send(1, &tx::Commit {});
    client.expect(1, &tx::CommitOk {});
    assert_eq!(client.count("q"), 2);
    client.send(1, &channel::Close { reply_code: 200, ..Default::default() });
    client.expect(1, &channel::CloseOk {});
    client.open_channel(1);
    assert_eq!(client.get("q").as_deref(), Some("1"));
    assert_eq!(client.get("q").as_deref(), Some("new"));
    assert_eq!(client.get("q"), None);
}

#[test]
fn what_a_transaction_had_settled_comes_back_when_it_is_never_committed() {
    let (_server, mut client) = ready(1);
    client.open_channel(2);
    client.send(2, &tx::Select {});
    client.expect(2, &tx::SelectOk {});
    client.consume(2, "q", "c");
    client.delivery();
    client.send(2, &basic::Ack { delivery_tag: 1, multiple: false });
    client.send(2, &channel::Close { reply_code: 200, ..Default::default() });
    client.expect(2, &channel::CloseOk {});
    assert_eq!(client.get("q").as_deref(), Some("0"));
}

#[test]
fn what_a_transaction_settles_takes_up_room_until_its_commit() {
    let (_server, mut client) = ready(3);
    client.send(1, &tx::Select {});
    client.expect(1, &tx::SelectOk {});
    client.send(1, &basic::Qos { prefetch_count: 1, global: true, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.consume(1, "q", "c");
    assert_eq!(client.bodies(), ["0"]);
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.publish("q", b"3");
    client.silent();
    client.send(1, &tx::Rollback {});
    client.expect(1, &tx::RollbackOk {});
    client.silent();
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.send(1, &tx::Commit {});
    assert_eq!(client.delivery().3, "1");
    client.expect(1, &tx::CommitOk {});
    client.silent();
}

#[test]
fn one_delivery_never_settled_does_not_keep_the_places_of_the_others() {
    let (server, mut client) = ready(1);
    client.consume(1, "q", "c");
    client.delivery();
    for tag in 2..10_000 {
        client.publish("q", b"x");
        assert_eq!(client.delivery().1, tag);
        client.send(1, &basic::Ack { delivery_tag: tag, multiple: false });
    }
    let engine = server.engine.borrow();
    let (_, channel) = engine.channels.iter().next().unwrap();
    assert!(channel.places() < 200, "{} places", channel.places());
}

/// What a client may do with a queue.
#[derive(Clone, Debug)]
enum Step {
    Publish,
    Consume(u16),
    Cancel(u16),
    /// Of the channel's deliveries that are not settled, one.
    Settle {
        channel: u16,
        which: usize,
        multiple: bool,
        requeue: Option<bool>,
    },
    Reopen(u16),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 2..4u16;
    prop_oneof![
        4 => Just(Step::Publish),
        1 => channel.clone().prop_map(Step::Consume),
        1 => channel.clone().prop_map(Step::Cancel),
        4 => (channel.clone(), any::<usize>(), any::<bool>(), any::<Option<bool>>()).prop_map(
            |(channel, which, multiple, requeue)| Step::Settle { channel, which, multiple, requeue }
        ),
        1 => channel.prop_map(Step::Reopen),
        1 => Just(Step::Purge),
    ]
}

proptest! {
    /// Every message is at all times in one place: ready, with one channel, or settled; and it is marked as
    /// redelivered exactly when it had been delivered before.
    #[test]
    fn no_message_is_lost_or_doubled(
        prefetch in 0..4u16,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (_server, mut client) = ready(0);
        let mut ready = BTreeSet::new();
        let mut held = BTreeMap::<u16, BTreeMap<u64, u64>>::new();
        let mut before = BTreeSet::new();
        let mut consuming = BTreeSet::new();
        let mut next = 0u64;
        // In one turn: what a channel gives back is delivered to the other one at the end of it.
        let reopen = |client: &mut Client, number, close: bool| {
            if close {
                client.send(number, &channel::Close { reply_code: 200, ..Default::default() });
            }
            client.send(number, &channel::Open {});
            client.send(number, &basic::Qos { prefetch_count: prefetch, ..Default::default() });
            if close {
                client.expect(number, &channel::CloseOk {});
            }
            client.expect(number, &channel::OpenOk {});
            client.expect(number, &basic::QosOk {});
        };
        reopen(&mut client, 2, false);
        reopen(&mut client, 3, false);
        for step in steps {
            match step {
                Step::Publish => {
                    client.publish("q", next.to_string().as_bytes());
                    ready.insert(next);
                    next += 1;
                }
                Step::Consume(number) => {
                    if consuming.insert(number) {
                        let consumer_tag = &number.to_string();
                        let consume = basic::Consume { queue: "q", consumer_tag, ..Default::default() };
                        client.send(number, &consume);
                        client.expect(number, &basic::ConsumeOk { consumer_tag });
                    }
                }
                Step::Cancel(number) => {
                    consuming.remove(&number);
                    let consumer_tag = &number.to_string();
                    client.send(number, &basic::Cancel { consumer_tag, no_wait: true });
                }
                Step::Settle { channel, which, multiple, requeue } => {
                    let held = held.entry(channel).or_default();
                    let Some(tag) = held.keys().nth(which % held.len().max(1)).copied() else { continue };
                    let (delivery_tag, requeues) = (tag, requeue == Some(true));
                    match requeue {
                        None => client.send(channel, &basic::Ack { delivery_tag, multiple }),
                        Some(requeue) => {
                            client.send(channel, &basic::Nack { delivery_tag, multiple, requeue });
                        }
                    }
                    held.retain(|other, message| {
                        let settled = *other == tag || (multiple && *other < tag);
                        if settled && requeues {
                            ready.insert(*message);
                        }
                        !settled
                    });
                }
                Step::Reopen(number) => {
                    consuming.remove(&number);
                    reopen(&mut client, number, true);
                    ready.extend(held.remove(&number).unwrap_or_default().into_values());
                }
                Step::Purge => {
                    client.send(1, &queue::Purge { queue: "q", no_wait: false });
                    client.expect(1, &queue::PurgeOk { message_count: ready.len() as u32 });
                    ready.clear();
                }
            }
            while let Some(seen) = client.next() {
                client.frames.push_front(seen);
                let (consumer, tag, redelivered, body) = client.delivery();
                let number: u16 = consumer.parse().unwrap();
                let message: u64 = body.parse().unwrap();
                // The oldest first, always.
                prop_assert_eq!(ready.pop_first(), Some(message));
                prop_assert!(consuming.contains(&number));
                prop_assert_eq!(redelivered, !before.insert(message));
                let held = held.entry(number).or_default();
                prop_assert!(held.insert(tag, message).is_none());
            }
            let full = |number: &u16| {
                // What was delivered to a consumer since cancelled counts for nothing: give it the benefit.
                prefetch != 0 && held.get(number).is_some_and(|held| held.len() >= usize::from(prefetch))
            };
            if !ready.is_empty() {
                prop_assert!(consuming.iter().all(full), "messages wait for nobody");
            }
            prop_assert_eq!(client.count("q"), ready.len() as u32);
        }
    }
}
