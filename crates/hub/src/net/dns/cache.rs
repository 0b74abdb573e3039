//! Answers that are kept until they are too old.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use super::Answer;
use super::message::Kind;

/// What is asked for: the name in lower case.
pub(super) type Question = (String, Kind);

/// Keeps a bounded number of answers; at the bound, those that came first go first.
#[derive(Default)]
pub(super) struct Cache(RefCell<Entries>);

#[derive(Default)]
struct Entries {
    by_question: HashMap<Question, Entry>,
    /// In the order of their coming, with the number of each. One that was replaced leaves its place behind.
    order: VecDeque<(Question, u64)>,
    last: u64,
}

struct Entry {
    answer: Rc<Answer>,
    until: Instant,
    number: u64,
}

impl Cache {
    /// An answer that is not too old.
    pub(super) fn find(&self, question: &Question, now: Instant) -> Option<Rc<Answer>> {
        let entries = self.0.borrow();
        let entry = entries.by_question.get(question)?;
        (now < entry.until).then(|| entry.answer.clone())
    }

    pub(super) fn insert(
        &self,
        question: Question,
        answer: Rc<Answer>,
        until: Instant,
        entries_max: usize,
    ) {
        if entries_max == 0 {
            return;
        }
        let mut entries = self.0.borrow_mut();
        let entries = &mut *entries;
        entries.last += 1;
        let number = entries.last;
        entries.order.push_back((question.clone(), number));
        entries.by_question.insert(question, Entry { answer, until, number });
        // Places left behind are bounded with the rest.
        while entries_max < entries.by_question.len() || 2 * entries_max < entries.order.len() {
            let Some((question, number)) = entries.order.pop_front() else { break };
            if entries.by_question.get(&question).is_some_and(|entry| entry.number == number) {
                entries.by_question.remove(&question);
            }
        }
    }

    pub(super) fn clear(&self) {
        self.0.take();
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().by_question.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_cache_is_bounded_and_forgets() {
        let cache = Cache::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let question = |n: usize| (format!("host{n}"), Kind::A);
        let answer = || Rc::new(Answer::NoName);
        for n in 0..100 {
            cache.insert(question(n), answer(), later, 10);
            // The same again and again does not push the others out early.
            cache.insert(question(n), answer(), later, 10);
        }
        assert!(cache.len() <= 10);
        assert!(cache.find(&question(99), now).is_some());
        assert!(cache.find(&question(0), now).is_none());
        assert!(cache.find(&question(99), later).is_none());
        cache.insert(question(1), answer(), later, 0);
        assert!(cache.find(&question(1), now).is_none());
        cache.clear();
        assert_eq!(cache.len(), 0);
    }
}
