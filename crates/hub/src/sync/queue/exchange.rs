//! What all queues have in common, for fibers of one hub and for threads: who puts, who gets, who waits for whom.
//!
//! ```text
//!    offers                    items                getters
//!    who waits for room,       up to `capacity`,    who waits for an item;
//!    each with its item        in storage order     those woken and not yet back are counted as `promised`
//!   [c][b] ---room for one---> [a][a][a] ---------> (1)(2)
//! ```
//! Nothing waits and nobody is woken in here: methods return whom to wake. An item is never on the way, so nobody
//! who is killed or gives up can take one with him: it is in `offers` or in `items` until the very call that
//! returns it to its new owner. A getter that is woken is *promised* an item, which nobody may overtake him to;
//! it says so if it comes for nothing ([`Exchange::pass_on`]). With a capacity of 0, items are taken out of the
//! putters' hands: a rendezvous.

use std::collections::VecDeque;

use super::storage::sealed::Storage;
use super::{GetError, PutError};

/// `W`: the right to wake one that waits.
pub(crate) struct Exchange<S: Storage, W> {
    items: S,
    capacity: usize,
    closed: bool,
    /// In order of their numbers, as are the getters.
    offers: VecDeque<Offer<S::Item, W>>,
    getters: VecDeque<(u64, W)>,
    /// Getters that were taken off the list and have not come back yet.
    promised: usize,
    last_id: u64,
    /// Items put that nobody has reported as done.
    unfinished: usize,
}

struct Offer<T, W> {
    id: u64,
    item: T,
    /// `None` once it was woken because the queue was closed.
    waker: Option<W>,
}

impl<S: Storage, W> Exchange<S, W> {
    pub(crate) const fn new(items: S, capacity: usize) -> Self {
        Self {
            items,
            capacity,
            closed: false,
            offers: VecDeque::new(),
            getters: VecDeque::new(),
            promised: 0,
            last_id: 0,
            unfinished: 0,
        }
    }

    /// Puts an item where there is room. Whom to wake.
    pub(crate) fn put(&mut self, item: S::Item) -> Result<Option<W>, PutError<S::Item>> {
        if self.closed {
            return Err(PutError::Closed(item));
        }
        // Without a capacity, one that waits for an item is as good as room.
        let room =
            self.items.len() < self.capacity || self.capacity == 0 && !self.getters.is_empty();
        if !room {
            return Err(PutError::Full(item));
        }
        self.push(item);
        Ok(self.promise())
    }

    /// Waits for room with an item. Its number, and whom to wake: when room has come since [`put`](Self::put) was
    /// tried, as may be between threads, the first that offers, and in any case one that gets.
    pub(crate) fn offer(&mut self, item: S::Item, waker: W) -> (u64, [Option<W>; 2]) {
        let id = self.next_id();
        self.offers.push_back(Offer { id, item, waker: Some(waker) });
        let putter = self.admit();
        (id, [putter, self.promise()])
    }

    /// Ends an offer. `None`: the item was taken.
    pub(crate) fn withdraw(&mut self, id: u64) -> Option<S::Item> {
        let index = self.offers.binary_search_by_key(&id, |offer| offer.id).ok()?;
        self.offers.remove(index).map(|offer| offer.item)
    }

    /// Takes an item that is promised to nobody. With whom to wake.
    pub(crate) fn get(&mut self) -> Result<(S::Item, Option<W>), GetError> {
        if self.has_item() { self.take() } else { Err(self.why_empty()) }
    }

    /// Waits for an item; at an old place, for one that came back and found nothing. The getter's number, and whom to
    /// wake when an item has come since [`get`](Self::get) was tried, as may be between threads.
    pub(crate) fn enlist(&mut self, place: Option<u64>, waker: W) -> (u64, Option<W>) {
        let id = place.unwrap_or_else(|| self.next_id());
        let index = self.getters.partition_point(|(other, _)| *other < id);
        self.getters.insert(index, (id, waker));
        (id, self.promise())
    }

    /// A getter comes back, and is no getter any more. False: nobody has woken it, and nothing is promised to it.
    pub(crate) fn come_back(&mut self, id: u64) -> bool {
        match self.getters.binary_search_by_key(&id, |(other, _)| *other) {
            Ok(index) => {
                self.getters.remove(index);
                false
            }
            Err(_) => {
                self.promised -= 1;
                true
            }
        }
    }

    /// After [`come_back`](Self::come_back): takes the item that was promised. With whom to wake.
    pub(crate) fn take(&mut self) -> Result<(S::Item, Option<W>), GetError> {
        let Some(item) = self.items.pop() else {
            let offer = if self.closed { None } else { self.offers.pop_front() };
            return offer.map(|offer| (offer.item, offer.waker)).ok_or_else(|| self.why_empty());
        };
        // The last item of a closed queue: those who still wait are to be told.
        let next = if self.is_over() { self.promise() } else { self.admit() };
        Ok((item, next))
    }

    /// Somebody who came back takes no item: there is none, or it unwinds. Whom to wake instead.
    pub(crate) fn pass_on(&mut self) -> Option<W> {
        self.promise()
    }

    /// The item that would be taken next.
    pub(crate) fn peek(&self) -> Result<&S::Item, GetError> {
        let offered = || self.offers.front().filter(|_| !self.closed).map(|offer| &offer.item);
        self.items.peek().or_else(offered).ok_or_else(|| self.why_empty())
    }

    /// Puts nothing any more; with `immediate`, gives what is there to be dropped. Tells `wake` whom to wake: all.
    pub(crate) fn close(&mut self, immediate: bool, mut wake: impl FnMut(W)) -> Option<S>
    where
        S: Default,
    {
        self.closed = true;
        let items = immediate.then(|| {
            self.unfinished = self.unfinished.saturating_sub(self.items.len());
            std::mem::take(&mut self.items)
        });
        self.offers.iter_mut().filter_map(|offer| offer.waker.take()).for_each(&mut wake);
        // Where items are left, they are promised; who takes the last one sees to those who still wait.
        while let Some(waker) = self.promise() {
            wake(waker);
        }
        items
    }

    /// Whether it is closed and empty. While items are left that are promised, one may still be passed on.
    pub(crate) fn is_over(&self) -> bool {
        self.closed && self.items.len() == 0
    }

    /// Whether there is an item that is promised to nobody.
    pub(crate) fn has_item(&self) -> bool {
        let offered = if self.closed { 0 } else { self.offers.len() };
        self.items.len() + offered > self.promised
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Items kept, without those that putters hold.
    pub(crate) fn len(&self) -> usize {
        self.items.len().min(self.capacity)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// An item is done with. False when none was unfinished.
    pub(crate) fn finish(&mut self) -> bool {
        let unfinished = self.unfinished > 0;
        self.unfinished -= usize::from(unfinished);
        unfinished
    }

    pub(crate) fn why_empty(&self) -> GetError {
        if self.is_over() { GetError::Closed } else { GetError::Empty }
    }

    fn push(&mut self, item: S::Item) {
        self.items.push(item);
        self.unfinished += 1;
    }

    /// Lets the first offer in, if there is room. Whom to wake.
    fn admit(&mut self) -> Option<W> {
        if self.closed || self.items.len() >= self.capacity {
            return None;
        }
        let offer = self.offers.pop_front()?;
        self.push(offer.item);
        offer.waker
    }

    /// Promises an item to the first getter, if there is one of each; or tells it that there will be none.
    fn promise(&mut self) -> Option<W> {
        if !self.has_item() && !self.is_over() {
            return None;
        }
        let (_, waker) = self.getters.pop_front()?;
        self.promised += 1;
        Some(waker)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fifo, GetError, PutError};
    use super::Exchange;

    /// Fibers are scheduled in order as a rule, but a simulation may run a putter that gives up before the getter
    /// it has woken.
    #[test]
    fn a_getter_whose_offer_is_withdrawn_keeps_its_place() {
        let mut exchange = Exchange::new(Fifo::new(), 0);
        let first = exchange.enlist(None, "first").0;
        exchange.enlist(None, "second");
        let (offer, woken) = exchange.offer(1, "putter");
        assert_eq!(woken, [None, Some("first")]);
        assert_eq!(exchange.withdraw(offer), Some(1));
        assert!(exchange.come_back(first));
        assert_eq!(exchange.take(), Err(GetError::Empty));
        exchange.enlist(Some(first), "first again");
        assert_eq!(exchange.offer(2, "putter").1, [None, Some("first again")]);
        assert_eq!(exchange.offer(3, "putter").1, [None, Some("second")]);
        assert!(exchange.come_back(first));
        assert_eq!(exchange.take(), Ok((2, Some("putter"))));
    }

    #[test]
    fn what_a_getter_does_not_take_is_promised_to_the_next() {
        let mut exchange = Exchange::new(Fifo::new(), 9);
        let (first, second) = (exchange.enlist(None, "first").0, exchange.enlist(None, "second").0);
        assert_eq!(exchange.put(1), Ok(Some("first")));
        assert_eq!(exchange.get(), Err(GetError::Empty));
        assert!(exchange.come_back(first));
        assert_eq!(exchange.pass_on(), Some("second"));
        assert!(exchange.come_back(second));
        assert_eq!(exchange.pass_on(), None);
        assert_eq!(exchange.get(), Ok((1, None)));
    }

    #[test]
    fn what_comes_between_trying_and_waiting_is_not_missed() {
        let mut exchange = Exchange::new(Fifo::new(), 1);
        assert_eq!(exchange.get(), Err(GetError::Empty));
        assert_eq!(exchange.put(1), Ok(None));
        assert_eq!(exchange.enlist(None, "getter").1, Some("getter"));
        assert_eq!(exchange.put(2), Err(PutError::Full(2)));
        assert!(exchange.come_back(1));
        assert_eq!(exchange.take(), Ok((1, None)));
        assert_eq!(exchange.offer(2, "putter").1, [Some("putter"), None]);
    }

    #[test]
    fn a_closed_queue_is_over_when_the_last_item_was_taken_and_not_before() {
        let mut exchange = Exchange::new(Fifo::new(), 9);
        let (first, second) = (exchange.enlist(None, "first").0, exchange.enlist(None, "second").0);
        assert_eq!(exchange.put(1), Ok(Some("first")));
        exchange.close(false, |other| panic!("{other} was woken"));
        assert_eq!(exchange.get(), Err(GetError::Empty), "the first may still pass it on");
        let (third, woken) = exchange.enlist(None, "third");
        assert_eq!(woken, None);
        assert!(exchange.come_back(first));
        assert_eq!(exchange.pass_on(), Some("second"));
        assert!(exchange.come_back(second));
        assert_eq!(exchange.take(), Ok((1, Some("third"))));
        assert!(exchange.come_back(third));
        assert_eq!(exchange.take(), Err(GetError::Closed));
        assert_eq!(exchange.pass_on(), None);
    }

    #[test]
    fn one_that_was_not_woken_has_nothing_to_pass_on() {
        let mut exchange = Exchange::<Fifo<i32>, _>::new(Fifo::new(), 9);
        let (first, second) = (exchange.enlist(None, "first").0, exchange.enlist(None, "second").0);
        assert!(!exchange.come_back(first));
        assert_eq!(exchange.put(1), Ok(Some("second")));
        assert!(exchange.come_back(second));
    }
}
