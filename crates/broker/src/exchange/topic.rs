//! Topic routing: a trie of words.
//!
//! Patterns and keys are words separated by dots; an empty key is no word at all. In a pattern `*` stands for
//! one word, `#` for any number of words, none included. A key is followed down the trie in all ways at once: after
//! each of its words there is a list of nodes that have been reached, no node twice. From a node lead the edge of
//! the next word, the edge `*`, and at no cost of words the edge `#`, whose end is reached again with every further
//! word. So a key costs its words times the nodes that are reached, whatever the patterns are, and bindings that
//! do not match cost nothing.
//!
//! ```text
//!   a.*.c      root --a--> 1 --*--> 2 --c--> 3
//!   a.#             1 --#--> 4 (loops)             key a.b.c:  [root] a [1 4] b [2 4] c [3 4]
//! ```
//! Nodes lie in one arena, edges in one map and each word is kept once, so that 100,000 bindings are three
//! allocations and not as many tables.

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::destinations::Destinations;
use super::{Binding, Destination, Routed, Router};
use crate::exception::Exception;

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// How a node is reached from the one above it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Word(u32),
    Star,
    Hash,
}

struct Node {
    above: u32,
    edge: Edge,
    star: u32,
    hash: u32,
    /// Edges that are words.
    words: u32,
    /// The last step of a routing that reached it.
    reached: u64,
    destinations: Destinations,
}

impl Node {
    fn new(above: u32, edge: Edge) -> Self {
        let destinations = Destinations::default();
        Self { above, edge, star: NONE, hash: NONE, words: 0, reached: 0, destinations }
    }

    fn is_empty(&self) -> bool {
        self.words == 0 && self.star == NONE && self.hash == NONE && self.destinations.is_empty()
    }
}

/// A word's number, and how many edges it is.
struct Word {
    number: u32,
    edges: u32,
}

pub(super) struct Trie {
    nodes: Slab<Node>,
    /// By node and word.
    edges: FxHashMap<(u32, u32), u32>,
    words: FxHashMap<CompactString, Word>,
    /// By number.
    texts: Slab<CompactString>,
    last_step: u64,
    /// Reused by each routing.
    reached: Vec<u32>,
    next: Vec<u32>,
}

impl Default for Trie {
    fn default() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(NONE, Edge::Star));
        Self {
            nodes,
            edges: FxHashMap::default(),
            words: FxHashMap::default(),
            texts: Slab::new(),
            last_step: 0,
            reached: Vec::new(),
            next: Vec::new(),
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    // `split` finds one empty word in an empty text.
    text.split('.').take(if text.is_empty() { 0 } else { usize::MAX })
}

impl Router for Trie {
    fn add(&mut self, binding: &Binding, _name: &str) -> Result<u32, Exception> {
        let node =
            words(&binding.routing_key).fold(ROOT, |node, word| self.step_or_make(node, word));
        self.nodes[node as usize].destinations.add(binding.destination);
        Ok(node)
    }

    fn remove(&mut self, binding: &Binding, place: u32) {
        let Some(node) = self.nodes.get_mut(place as usize) else { return };
        node.destinations.remove(binding.destination);
        let mut at = place;
        while at != ROOT && self.nodes.get(at as usize).is_some_and(Node::is_empty) {
            at = self.prune(at);
        }
    }

    fn route(&mut self, message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        for key in message.keys() {
            self.route_key(key, each);
        }
    }
}

impl Trie {
    fn step_or_make(&mut self, node: u32, word: &str) -> u32 {
        let edge = match word {
            "*" => Edge::Star,
            "#" => Edge::Hash,
            word => Edge::Word(self.number(word)),
        };
        let found = match edge {
            Edge::Star => self.nodes[node as usize].star,
            Edge::Hash => self.nodes[node as usize].hash,
            Edge::Word(word) => self.edges.get(&(node, word)).copied().unwrap_or(NONE),
        };
        if found != NONE {
            return found;
        }
        let made = self.nodes.insert(Node::new(node, edge)) as u32;
        let above = &mut self.nodes[node as usize];
        match edge {
            Edge::Star => above.star = made,
            Edge::Hash => above.hash = made,
            Edge::Word(number) => {
                above.words += 1;
                self.edges.insert((node, number), made);
                if let Some(word) = self.words.get_mut(word) {
                    word.edges += 1;
                }
            }
        }
        made
    }

    /// A word's number; that of a new word is one with no edge yet.
    fn number(&mut self, word: &str) -> u32 {
        if let Some(word) = self.words.get(word) {
            return word.number;
        }
        let number = self.texts.insert(word.into()) as u32;
        self.words.insert(word.into(), Word { number, edges: 0 });
        number
    }

    /// Takes out a node that leads nowhere. The one above it.
    fn prune(&mut self, at: u32) -> u32 {
        let Node { above, edge, .. } = self.nodes.remove(at as usize);
        let node = &mut self.nodes[above as usize];
        match edge {
            Edge::Star => node.star = NONE,
            Edge::Hash => node.hash = NONE,
            Edge::Word(number) => {
                node.words -= 1;
                self.edges.remove(&(above, number));
                self.forget_word(number);
            }
        }
        above
    }

    fn forget_word(&mut self, number: u32) {
        let Some(text) = self.texts.get(number as usize) else { return };
        let Some(word) = self.words.get_mut(text) else { return };
        word.edges -= 1;
        if word.edges == 0 {
            self.words.remove(text);
            self.texts.remove(number as usize);
        }
    }

    fn route_key(&mut self, key: &str, each: &mut impl FnMut(Destination)) {
        let mut reached = std::mem::take(&mut self.reached);
        let mut next = std::mem::take(&mut self.next);
        reached.clear();
        self.last_step += 1;
        self.reach(ROOT, &mut reached);
        for word in words(key) {
            self.last_step += 1;
            let number = self.words.get(word).map(|word| word.number);
            next.clear();
            for at in &reached {
                let Node { edge, star, words, .. } = self.nodes[*at as usize];
                if edge == Edge::Hash {
                    self.reach(*at, &mut next);
                }
                if star != NONE {
                    self.reach(star, &mut next);
                }
                if 0 < words
                    && let Some(number) = number
                    && let Some(found) = self.edges.get(&(*at, number))
                {
                    self.reach(*found, &mut next);
                }
            }
            std::mem::swap(&mut reached, &mut next);
            if reached.is_empty() {
                break;
            }
        }
        for at in &reached {
            self.nodes[*at as usize].destinations.iter().for_each(&mut *each);
        }
        (self.reached, self.next) = (reached, next);
    }

    /// Notes that a node is reached, and what `#` reaches from there without a word.
    fn reach(&mut self, mut at: u32, list: &mut Vec<u32>) {
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            if std::mem::replace(&mut node.reached, self.last_step) == self.last_step {
                return;
            }
            list.push(at);
            at = node.hash;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Binding, Destination, Routed, Router, Trie, words};
    use crate::table::Table;

    /// What the documentation says, word by word, however slow.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match pattern.split_first() {
            None => key.is_empty(),
            Some((&"#", rest)) => (0..=key.len()).any(|eaten| matches(rest, &key[eaten..])),
            Some((&word, rest)) => key.split_first().is_some_and(|(first, others)| {
                (word == "*" || word == *first) && matches(rest, others)
            }),
        }
    }

    fn text(alphabet: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(alphabet), 0..6)
            .prop_map(|words| words.join("."))
    }

    fn message(key: &str) -> Routed<'_> {
        Routed { routing_key: key, more_keys: &[], properties: &[0, 0] }
    }

    proptest! {
        #[test]
        fn a_trie_finds_what_matching_one_by_one_finds(
            patterns in prop::collection::vec(text(&["a", "b", "", "*", "#"]), 1..20),
            keys in prop::collection::vec(text(&["a", "b", "c", ""]), 1..10),
            removed in prop::collection::vec(any::<bool>(), 20),
        ) {
            let mut table = Table::default();
            let mut trie = Trie::default();
            let bindings: Vec<_> = patterns
                .iter()
                .map(|pattern| {
                    let destination = Destination::Queue(table.insert_for_test());
                    let binding =
                        Binding { destination, routing_key: pattern.into(), arguments: [].into() };
                    let place = trie.add(&binding, "").unwrap();
                    (pattern, binding, place)
                })
                .collect();
            for ((_, binding, place), removed) in bindings.iter().zip(&removed) {
                if *removed {
                    trie.remove(binding, *place);
                }
            }
            for key in &keys {
                let mut found = BTreeSet::new();
                trie.route(message(key), &mut |destination| {
                    let at = bindings.iter().position(|(_, other, _)| other.destination == destination);
                    assert!(found.insert(at.unwrap()), "each is found once");
                });
                let expected: BTreeSet<usize> = (0..bindings.len())
                    .filter(|&n| !removed[n])
                    .filter(|&n| {
                        let pattern: Vec<_> = words(bindings[n].0).collect();
                        matches(&pattern, &words(key).collect::<Vec<_>>())
                    })
                    .collect();
                prop_assert_eq!(found, expected, "key {:?}", key);
            }
            for ((_, binding, place), removed) in bindings.iter().zip(&removed) {
                if !removed {
                    trie.remove(binding, *place);
                }
            }
            prop_assert_eq!((trie.nodes.len(), trie.edges.len()), (1, 0));
            prop_assert_eq!((trie.words.len(), trie.texts.len()), (0, 0));
        }
    }

    #[test]
    fn many_hashes_cost_no_more_than_their_number() {
        let (mut table, mut trie) = (Table::default(), Trie::default());
        let pattern = ["#"; 100].join(".a.");
        let destination = Destination::Queue(table.insert_for_test());
        let routing_key = pattern[..255].trim_end_matches('.').into();
        let arguments = [].into();
        trie.add(&Binding { destination, routing_key, arguments }, "").unwrap();
        let mut found = 0;
        // Tried one way after the other this would not end.
        trie.route(message(&["a"; 127].join(".")), &mut |_| found += 1);
        assert_eq!(found, 1);
    }
}
