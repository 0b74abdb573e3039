//! Where messages go.

use std::collections::BTreeSet;

use super::steps::{ALTERNATE, EXCHANGES, KEYS, QUEUES, headers, match_arguments};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Queue(usize),
    Exchange(usize),
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Exchange, where it leads, key.
    bindings: BTreeSet<(usize, End, usize)>,
}

impl Routes {
    pub(super) fn bind(&mut self, exchange: usize, to: End, key: usize) {
        self.bindings.insert((exchange, to, key));
    }

    pub(super) fn unbind(&mut self, exchange: usize, to: End, key: usize) {
        self.bindings.remove(&(exchange, to, key));
    }

    /// The queue has gone.
    pub(super) fn forget(&mut self, queue: usize) {
        self.bindings.retain(|(_, to, _)| *to != End::Queue(queue));
    }

    /// The queues of a message, among those that `is_there`.
    pub(super) fn route(
        &self,
        exchange: usize,
        keys: &[&str],
        says: usize,
        is_there: impl Fn(usize) -> bool,
    ) -> BTreeSet<usize> {
        if exchange == 0 {
            let named = (0..QUEUES.len()).filter(|queue| keys.contains(&QUEUES[*queue]));
            return named.filter(|queue| is_there(*queue)).collect();
        }
        let (mut queues, mut passed, mut ahead) =
            (BTreeSet::new(), BTreeSet::new(), vec![exchange]);
        while let Some(exchange) = ahead.pop() {
            if !passed.insert(exchange) {
                continue;
            }
            let mut led_on = false;
            for (of, to, key) in &self.bindings {
                if *of == exchange && keys.iter().any(|said| takes(exchange, *key, said, says)) {
                    led_on = true;
                    match to {
                        End::Queue(queue) => drop(queues.insert(*queue)),
                        End::Exchange(next) => ahead.push(*next),
                    }
                }
            }
            if !led_on && exchange == ALTERNATE.0 {
                ahead.push(ALTERNATE.1);
            }
        }
        queues
    }
}

fn takes(exchange: usize, bound: usize, said: &str, says: usize) -> bool {
    match EXCHANGES[exchange].1 {
        "fanout" => true,
        "direct" => KEYS[bound] == said,
        "topic" => {
            let words = |key: &'static str| key.split('.').collect::<Vec<_>>();
            matches(&words(KEYS[bound]), &said.split('.').collect::<Vec<_>>())
        }
        _ => agrees(bound, says),
    }
}

fn matches(pattern: &[&str], words: &[&str]) -> bool {
    match pattern.split_first() {
        None => words.is_empty(),
        Some((&"#", rest)) => (0..=words.len()).any(|skipped| matches(rest, &words[skipped..])),
        Some((&word, rest)) => {
            !words.is_empty() && (word == "*" || word == words[0]) && matches(rest, &words[1..])
        }
    }
}

fn agrees(bound: usize, says: usize) -> bool {
    let (how, wanted) = match_arguments(bound);
    let said = headers(says);
    let mut wanted = wanted
        .iter()
        .filter(|(name, _)| how.ends_with("-with-x") || !name.starts_with("x-"))
        .map(|(name, value)| said.get(name) == Some(value));
    if how.starts_with("all") { wanted.all(|same| same) } else { wanted.any(|same| same) }
}
