//! Exchanges with many bindings.

use anyhow::Result;
use warren::perf::{Client, Message};
use warren_amqp::method::{exchange, queue};
use warren_amqp::{BasicProperties, FieldTable};

use super::flow::Flow;
use super::{Bench, Rate, Side, Sizes, declare_queues, delete_queues, names};
use crate::load::calls;

const TOPICS: Sizes = Sizes { warren: 100_000, rabbitmq: 10_000 };
/// Of those, the ones that all match one key.
const MATCHING: Sizes = Sizes::same(1_000);
const HEADERS: Sizes = Sizes::same(10_000);
const HASHED: Sizes = Sizes::same(100);
const EXCHANGE: &str = "bench-routing";
/// Messages that are published in turn.
const KINDS: usize = 100;

pub(super) fn run(bench: &Bench) -> Result<()> {
    println!("## Routing\n");
    println!(
        "One publisher and, where something matches, one consumer that keeps up. All bindings of a topic or headers \
         exchange lead to one queue, so a message that matches any of them is delivered once. Patterns are like \
         `plant.17.line.4.*`; the 1,000 that match one key have each of its ten words or `*`.\n"
    );
    let mut rows = topics(bench)?;
    rows.extend(headers(bench)?);
    rows.push(hash(bench)?);
    bench.rates("publishes/s", "publish", &rows);
    Ok(())
}

type Rows = Vec<(String, Vec<Rate>)>;

/// What the keys of a batch find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    One,
    Many,
}

fn topics(bench: &Bench) -> Result<Rows> {
    let many = TOPICS.told("bindings", bench.effort);
    let matching = MATCHING.told("match", bench.effort);
    let cases = [
        (Sizes::same(bench.effort.divisor), Found::One, "topic, 1 binding, which matches".into()),
        (TOPICS, Found::One, format!("topic, {many}, 1 matches")),
        (TOPICS, Found::Many, format!("topic, {many}, {matching}")),
        (
            Sizes::same(bench.effort.divisor),
            Found::Nothing,
            "topic, 1 binding, which does not".into(),
        ),
        (TOPICS, Found::Nothing, format!("topic, {many}, none matches")),
    ];
    let mut rows: Rows = cases.iter().map(|(_, _, name)| (name.clone(), Vec::new())).collect();
    for side in &bench.sides {
        let mut bound = 0;
        let mut place = Place::open(side, "topic", &["bench-topic".to_owned()])?;
        for ((sizes, found, _), (_, rates)) in cases.iter().zip(&mut rows) {
            let count = sizes.of(side, bench.effort);
            if count < bound {
                place.close()?;
                place = Place::open(side, "topic", &["bench-topic".to_owned()])?;
                bound = 0;
            }
            let many = MATCHING.of(side, bench.effort).min(count.saturating_sub(1));
            place.bind(bound..count, |at| match at.checked_sub(1).filter(|at| *at < many) {
                // The first is one of the others.
                Some(at) => (starred(at), FieldTable::new()),
                None => (format!("plant.{}.line.{}.*", at / 1000, at % 1000), FieldTable::new()),
            })?;
            bound = count;
            let one = |number: usize| match number * count / KINDS {
                at if (1..=many).contains(&at) => 0,
                at => at,
            };
            let message = |number: usize| {
                let at = one(number);
                let routing_key = match found {
                    Found::Nothing => format!("plant.{}.line.{}", at / 1000, at % 1000),
                    Found::One => format!("plant.{}.line.{}.heat", at / 1000, at % 1000),
                    Found::Many => WORDS.join("."),
                };
                Message { routing_key, ..Message::default() }
            };
            let messages: Vec<_> = (0..KINDS).map(message).collect();
            rates.push(place.flow(bench, &messages, *found != Found::Nothing)?);
        }
        place.close()?;
    }
    Ok(rows)
}

const WORDS: [&str; 10] = ["a", "bc", "def", "gh", "i", "jk", "lmn", "op", "q", "rs"];

/// The words, with `*` for those whose bit is set.
fn starred(bits: usize) -> String {
    let word = |(at, word): (usize, &&'static str)| if bits >> at & 1 == 1 { "*" } else { word };
    WORDS.iter().enumerate().map(word).collect::<Vec<_>>().join(".")
}

fn headers(bench: &Bench) -> Result<Rows> {
    let many = HEADERS.told("bindings of two headers", bench.effort);
    let cases = [
        (
            Sizes::same(bench.effort.divisor),
            "headers, 1 binding of two headers, which matches".into(),
        ),
        (HEADERS, format!("headers, {many}, 1 matches")),
    ];
    let mut rows: Rows = cases.iter().map(|(_, name)| (name.clone(), Vec::new())).collect();
    for side in &bench.sides {
        let mut place = Place::open(side, "headers", &["bench-headers".to_owned()])?;
        let mut bound = 0;
        for ((sizes, _), (_, rates)) in cases.iter().zip(&mut rows) {
            let count = sizes.of(side, bench.effort);
            let table =
                |at: usize| FieldTable::new().with("format", "report").with("customer", at as i32);
            place.bind(bound..count, |at| (String::new(), table(at)))?;
            bound = count;
            let message = |number: usize| {
                let headers = Some(table(number * count / KINDS));
                let properties = BasicProperties { headers, ..BasicProperties::new() };
                Message { properties, ..Message::default() }
            };
            let messages: Vec<_> = (0..KINDS).map(message).collect();
            rates.push(place.flow(bench, &messages, true)?);
        }
        place.close()?;
    }
    Ok(rows)
}

fn hash(bench: &Bench) -> Result<(String, Vec<Rate>)> {
    let rates = bench.each(|side| {
        let queues = names("bench-hash", HASHED.of(side, bench.effort));
        let mut place = Place::open(side, "x-consistent-hash", &queues)?;
        place.bind(0..queues.len(), |_| ("10".into(), FieldTable::new()))?;
        let message = |number| {
            let routing_key = format!("customer-{number}");
            Message { routing_key, ..Message::default() }
        };
        let messages: Vec<_> = (0..KINDS).map(message).collect();
        let rate = place.flow(bench, &messages, true)?;
        place.close()?;
        Ok(rate)
    })?;
    Ok((format!("consistent hash, {}", HASHED.told("queues", bench.effort)), rates))
}

/// An exchange with its queues.
struct Place<'s> {
    side: &'s Side,
    kind: &'static str,
    client: Client,
    queues: Vec<String>,
}

impl<'s> Place<'s> {
    fn open(side: &'s Side, kind: &'static str, queues: &[String]) -> Result<Self> {
        let mut client = Client::open(&side.url)?;
        declare_queues(&mut client, queues, &queue::Declare::default())?;
        let exchange = EXCHANGE;
        client.call(&exchange::Declare { exchange, kind, ..exchange::Declare::default() })?;
        Ok(Self { side, kind, client, queues: queues.to_vec() })
    }

    /// Adds bindings of these numbers, to its queues in turn.
    fn bind(
        &mut self,
        range: std::ops::Range<usize>,
        binding: impl Fn(usize) -> (String, FieldTable),
    ) -> Result<()> {
        let made: Vec<_> = range.map(|at| (at, binding(at))).collect();
        let queues = &self.queues;
        calls(&mut self.client, made.len(), |index| {
            let (at, (routing_key, arguments)) = &made[index];
            queue::Bind {
                queue: &queues[at % queues.len()],
                exchange: EXCHANGE,
                routing_key,
                arguments: arguments.clone(),
                ..queue::Bind::default()
            }
        })
    }

    fn flow(&self, bench: &Bench, messages: &[Message], arrives: bool) -> Result<Rate> {
        let exchange = (EXCHANGE, self.kind);
        let (confirms, queues) = (false, &self.queues[..]);
        let flow = Flow { exchange, messages, body_bytes: 16, confirms, queues, arrives };
        Ok(flow.run(self.side, bench.effort)?.0)
    }

    fn close(mut self) -> Result<()> {
        let exchange = EXCHANGE;
        self.client.call(&exchange::Delete { exchange, ..exchange::Delete::default() })?;
        delete_queues(&mut self.client, &self.queues)
    }
}

#[cfg(test)]
mod tests {
    use super::{WORDS, starred};

    #[test]
    fn a_thousand_patterns_differ() {
        let patterns: std::collections::BTreeSet<_> = (0..1000).map(starred).collect();
        assert_eq!(patterns.len(), 1000);
        assert_eq!(starred(0), WORDS.join("."));
        assert_eq!(starred(0b101), "*.bc.*.gh.i.jk.lmn.op.q.rs");
    }
}
