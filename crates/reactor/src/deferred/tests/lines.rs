//! Random uses of queues and semaphores beside plain models of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use crate::{Canceller, Deferred, DeferredPermit, DeferredQueue, DeferredSemaphore};

/// Who was served, with what, in order. A cancelled one is served with nothing.
type Served<T> = Rc<RefCell<Vec<(usize, Option<T>)>>>;

fn note<T: 'static>(served: &Served<T>, who: usize, deferred: Deferred<T>) -> Canceller {
    let canceller = deferred.canceller();
    let served = served.clone();
    drop(deferred.add_both(move |result| {
        served.borrow_mut().push((who, result.ok()));
        Ok(())
    }));
    canceller
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Put,
    Get,
    /// One of those that have been asked for.
    Cancel(usize),
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let one = prop_oneof![
        3 => Just(Use::Put),
        3 => Just(Use::Get),
        1 => (0..30_usize).prop_map(Use::Cancel),
    ];
    prop::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn queues_do_as_the_model_does(
        uses in uses(),
        size in prop::option::of(0..4_usize),
        backlog in prop::option::of(0..4_usize),
    ) {
        let queue = DeferredQueue::with_limits(size, backlog);
        let served = Served::default();
        let mut cancellers = Vec::new();
        let (mut items, mut waiting) = (VecDeque::new(), VecDeque::new());
        let mut expected = Vec::new();
        for (item, use_) in uses.into_iter().enumerate() {
            match use_ {
                Use::Put => {
                    let put = queue.put(item).is_ok();
                    if let Some(who) = waiting.pop_front() {
                        expected.push((who, Some(item)));
                        prop_assert!(put);
                    } else {
                        let fits = size.is_none_or(|size| items.len() < size);
                        prop_assert_eq!(put, fits);
                        items.extend(fits.then_some(item));
                    }
                }
                Use::Get => {
                    let who = cancellers.len();
                    let got = queue.get();
                    if let Some(item) = items.pop_front() {
                        expected.push((who, Some(item)));
                    } else if backlog.is_none_or(|backlog| waiting.len() < backlog) {
                        waiting.push_back(who);
                    } else {
                        prop_assert!(got.is_err());
                        continue;
                    }
                    cancellers.push(note(&served, who, got.unwrap()));
                }
                Use::Cancel(who) => {
                    if let Some(canceller) = cancellers.get(who) {
                        canceller.cancel();
                    }
                    if let Some(place) = waiting.iter().position(|waiting| *waiting == who) {
                        waiting.remove(place);
                        expected.push((who, None));
                    }
                }
            }
            prop_assert_eq!(&*served.borrow(), &expected);
            prop_assert_eq!((queue.len(), queue.backlog()), (items.len(), waiting.len()));
        }
    }

    /// A `Put` gives the oldest permit back, a `Get` asks for one.
    #[test]
    fn semaphores_do_as_the_model_does(uses in uses(), limit in 1..4_usize) {
        let semaphore = DeferredSemaphore::new(limit);
        let served = Served::<DeferredPermit>::default();
        let mut cancellers = Vec::new();
        let (mut held, mut waiting) = (0, VecDeque::new());
        let mut order = Vec::new();
        for use_ in uses {
            match use_ {
                Use::Put => {
                    let permit = served.borrow_mut().iter_mut().find_map(|(_, permit)| permit.take());
                    prop_assert_eq!(permit.is_some(), 0 < held);
                    if permit.is_some() {
                        match waiting.pop_front() {
                            Some(who) => order.push(who),
                            None => held -= 1,
                        }
                    }
                    drop(permit);
                }
                Use::Get => {
                    let who = cancellers.len();
                    if held < limit {
                        held += 1;
                        order.push(who);
                    } else {
                        waiting.push_back(who);
                    }
                    cancellers.push(note(&served, who, semaphore.acquire()));
                }
                Use::Cancel(who) => {
                    if let Some(canceller) = cancellers.get(who) {
                        canceller.cancel();
                    }
                    if let Some(place) = waiting.iter().position(|waiting| *waiting == who) {
                        waiting.remove(place);
                        order.push(who);
                    }
                }
            }
            let served: Vec<usize> = served.borrow().iter().map(|(who, _)| *who).collect();
            prop_assert_eq!(&served, &order);
            prop_assert_eq!(semaphore.tokens(), limit - held);
            prop_assert_eq!(semaphore.waiting(), waiting.len());
        }
    }
}
