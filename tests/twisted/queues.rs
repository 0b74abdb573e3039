//! Who takes, who puts.

use warren_reactor::{DeferredQueue, QueueOverflow, QueueUnderflow};

use crate::said::{end, step};

scenarios! { here:
    put_before
    put_after
    full
    full_but_somebody_waits
    too_many_wait
    nobody_may_wait
    one_that_waits_is_cancelled
    a_callback_takes_again
}

fn put_before() {
    let queue = DeferredQueue::new();
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    end(queue.get().unwrap());
    end(queue.get().unwrap());
}

fn put_after() {
    let queue = DeferredQueue::new();
    let first = queue.get().unwrap().add_callback(step("first"));
    let second = queue.get().unwrap().add_callback(step("second"));
    queue.put(1).unwrap();
    say!("put one");
    queue.put(2).unwrap();
    end(first);
    end(second);
}

fn full() {
    let queue = DeferredQueue::with_limits(Some(1), None);
    queue.put(1).unwrap();
    if let Err(QueueOverflow(_)) = queue.put(2) {
        say!("overflow");
    }
    end(queue.get().unwrap());
    queue.put(3).unwrap();
    end(queue.get().unwrap());
}

fn full_but_somebody_waits() {
    let queue = DeferredQueue::with_limits(Some(0), None);
    let waiting = queue.get().unwrap();
    queue.put(1).unwrap();
    end(waiting);
    if let Err(QueueOverflow(_)) = queue.put(2) {
        say!("overflow");
    }
}

fn too_many_wait() {
    let queue = DeferredQueue::with_limits(None, Some(1));
    let waiting = queue.get().unwrap();
    if let Err(QueueUnderflow) = queue.get() {
        say!("underflow");
    }
    queue.put(1).unwrap();
    end(waiting);
}

fn nobody_may_wait() {
    let queue = DeferredQueue::with_limits(None, Some(0));
    if let Err(QueueUnderflow) = queue.get() {
        say!("underflow");
    }
    queue.put(1).unwrap();
    end(queue.get().unwrap());
}

fn one_that_waits_is_cancelled() {
    let queue = DeferredQueue::with_limits(None, Some(2));
    let (first, second) = (queue.get().unwrap(), queue.get().unwrap());
    first.cancel();
    end(first);
    queue.put(1).unwrap();
    end(second);
}

fn a_callback_takes_again() {
    let queue = DeferredQueue::new();
    let again = queue.clone();
    let deferred = queue.get().unwrap().add_callback(move |value| {
        say!("took {value}");
        again.get().unwrap()
    });
    let deferred = deferred.add_callback(step("then"));
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    end(deferred);
}
