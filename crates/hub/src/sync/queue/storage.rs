//! What a queue keeps its items in: the one thing in which the kinds of queues differ.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The order in which a [`BaseQueue`](super::BaseQueue) gives its items. Only this crate implements it.
pub trait Storage: Default + sealed::Storage {}

pub(crate) mod sealed {
    pub trait Storage {
        type Item;
        /// What a queue of this kind holds when nothing else is said.
        const CAPACITY_MAX: usize = usize::MAX;

        fn push(&mut self, item: Self::Item);
        /// Takes the item that is next.
        fn pop(&mut self) -> Option<Self::Item>;
        /// The item that is next.
        fn peek(&self) -> Option<&Self::Item>;
        fn len(&self) -> usize;
    }
}

/// First in, first out: see [`Queue`](super::Queue).
pub struct Fifo<T>(VecDeque<T>);

impl<T> Fifo<T> {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Storage for Fifo<T> {}

impl<T> sealed::Storage for Fifo<T> {
    type Item = T;

    fn push(&mut self, item: T) {
        self.0.push_back(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop_front()
    }

    fn peek(&self) -> Option<&T> {
        self.0.front()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Last in, first out: see [`LifoQueue`](super::LifoQueue).
pub struct Lifo<T>(Vec<T>);

impl<T> Default for Lifo<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Storage for Lifo<T> {}

impl<T> sealed::Storage for Lifo<T> {
    type Item = T;

    fn push(&mut self, item: T) {
        self.0.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    fn peek(&self) -> Option<&T> {
        self.0.last()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// The smallest first: see [`PriorityQueue`](super::PriorityQueue).
pub struct Heap<T>(BinaryHeap<Reverse<T>>);

impl<T: Ord> Default for Heap<T> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<T: Ord> Storage for Heap<T> {}

impl<T: Ord> sealed::Storage for Heap<T> {
    type Item = T;

    fn push(&mut self, item: T) {
        self.0.push(Reverse(item));
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop().map(|Reverse(item)| item)
    }

    fn peek(&self) -> Option<&T> {
        self.0.peek().map(|Reverse(item)| item)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}
