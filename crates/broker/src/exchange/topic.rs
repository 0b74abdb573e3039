//! Topic routing: a trie of words.
//!
//! Patterns and keys are words separated by dots; an empty key is no word at all. In a pattern `*` stands for
//! one word, `#` for any number of words, none included. A key is followed down the trie along the edge of its
//! next word, along `*`, and along `#` with any number of words eaten.

use compact_str::CompactString;
use rustc_hash::FxHashMap;

use super::Destination;

#[derive(Default)]
pub(super) struct Trie {
    root: Node,
}

#[derive(Default)]
struct Node {
    words: FxHashMap<CompactString, Node>,
    /// The edge `*`.
    star: Option<Box<Node>>,
    /// The edge `#`.
    hash: Option<Box<Node>>,
    destinations: Vec<Destination>,
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    // `split` finds one empty word in an empty text.
    text.split('.').take(if text.is_empty() { 0 } else { usize::MAX })
}

impl Trie {
    pub(super) fn insert(&mut self, pattern: &str, destination: Destination) {
        let mut node = &mut self.root;
        for word in words(pattern) {
            node = match word {
                "*" => node.star.get_or_insert_default(),
                "#" => node.hash.get_or_insert_default(),
                _ => node.words.entry(word.into()).or_default(),
            };
        }
        node.destinations.push(destination);
    }

    pub(super) fn remove(&mut self, pattern: &str, destination: Destination) {
        let path: Vec<&str> = words(pattern).collect();
        self.root.remove(&path, destination);
    }

    /// Calls `each` with the destinations of all patterns that match, maybe more than once.
    pub(super) fn route(&self, key: &str, each: &mut impl FnMut(Destination)) {
        // On the stack: keys have few words.
        let mut path: [&str; 16] = [""; 16];
        let mut count = 0;
        for word in words(key) {
            if count == path.len() {
                let path: Vec<&str> = words(key).collect();
                return self.root.route(&path, each);
            }
            path[count] = word;
            count += 1;
        }
        self.root.route(&path[..count], each);
    }
}

impl Node {
    fn route(&self, path: &[&str], each: &mut impl FnMut(Destination)) {
        if let Some(hash) = &self.hash {
            // A pattern rarely goes on after `#`; when it does not, eating everything is all there is to try.
            if hash.is_leaf() {
                hash.destinations.iter().copied().for_each(&mut *each);
            } else {
                for eaten in 0..=path.len() {
                    hash.route(&path[eaten..], each);
                }
            }
        }
        match path.split_first() {
            None => self.destinations.iter().copied().for_each(each),
            Some((word, rest)) => {
                if let Some(node) = self.words.get(*word) {
                    node.route(rest, each);
                }
                if let Some(node) = &self.star {
                    node.route(rest, each);
                }
            }
        }
    }

    fn is_leaf(&self) -> bool {
        self.words.is_empty() && self.star.is_none() && self.hash.is_none()
    }

    fn is_empty(&self) -> bool {
        self.is_leaf() && self.destinations.is_empty()
    }

    /// Removes one destination, and the nodes that then lead nowhere.
    fn remove(&mut self, path: &[&str], destination: Destination) {
        let Some((word, rest)) = path.split_first() else {
            return super::remove_one(&mut self.destinations, destination);
        };
        let edge = match *word {
            "*" => &mut self.star,
            "#" => &mut self.hash,
            word => {
                if let Some(node) = self.words.get_mut(word) {
                    node.remove(rest, destination);
                    if node.is_empty() {
                        self.words.remove(word);
                    }
                }
                return;
            }
        };
        if let Some(node) = edge {
            node.remove(rest, destination);
            if node.is_empty() {
                *edge = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Destination, Trie, words};
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
                .map(|pattern| (pattern, Destination::Queue(table.insert_for_test())))
                .collect();
            for (pattern, destination) in &bindings {
                trie.insert(pattern, *destination);
            }
            for ((pattern, destination), removed) in bindings.iter().zip(&removed) {
                if *removed {
                    trie.remove(pattern, *destination);
                }
            }
            for key in &keys {
                let mut found = BTreeSet::new();
                trie.route(key, &mut |destination| {
                    found.insert(bindings.iter().position(|(_, other)| *other == destination).unwrap());
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
            for ((pattern, destination), removed) in bindings.iter().zip(&removed) {
                if !removed {
                    trie.remove(pattern, *destination);
                }
            }
            prop_assert!(trie.root.is_empty());
        }
    }
}
