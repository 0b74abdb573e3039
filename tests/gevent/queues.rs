//! Queues and channels.

use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::{
    Channel, Closed, GetError, JoinableQueue, LifoQueue, PriorityQueue, PutError, Queue,
};
use warren_hub::{JoinHandle, join_all, sleep, spawn, yield_now};

use crate::said::{LONG, SHORT, list, swallow, yes};

scenarios! { on_hub:
    first_in_first_out
    last_in_first_out
    the_least_first
    a_getter_waits_for_a_putter
    getters_are_served_in_order
    a_full_queue_makes_the_putter_wait
    putters_are_served_in_order
    without_waiting
    with_a_timeout
    peek_leaves_the_item
    a_killed_getter_takes_nothing
    a_killed_putter_puts_nothing
    a_getter_that_gave_up_takes_nothing
    a_producer_and_a_consumer
    shutdown_lets_getters_empty_it
    shutdown_at_once_drops_the_items
    shutdown_wakes_those_who_get
    shutdown_wakes_those_who_put
    join_waits_for_all_tasks
    join_of_an_untouched_queue_returns
    a_task_done_too_many
    unfinished_tasks_are_counted
    a_channel_passes_from_hand_to_hand
    a_channel_holds_nothing
    a_channel_serves_in_order
    a_channel_with_a_getter_takes_at_once
    a_putter_of_a_channel_that_gave_up_leaves_nothing
}

fn items(queue: &Queue<u32>, count: usize) -> String {
    list((0..count).map(|_| queue.get().unwrap()))
}

/// A fiber that says what it gets.
fn getter(queue: &Rc<Queue<u32>>, name: &'static str) -> JoinHandle<()> {
    let queue = queue.clone();
    spawn(move || say!("{name} got {}", queue.get().unwrap()))
}

fn putter(queue: &Rc<Queue<u32>>, item: u32) -> JoinHandle<Result<(), Closed>> {
    let queue = queue.clone();
    spawn(move || queue.put(item))
}

fn first_in_first_out() {
    let queue = Queue::unbounded();
    for item in [1, 2, 3] {
        queue.put(item).unwrap();
    }
    say!("{} items", queue.len());
    say!("{}", items(&queue, 3));
    say!("empty {}", yes(queue.is_empty()));
}

fn last_in_first_out() {
    let queue = LifoQueue::unbounded();
    for item in [1, 2, 3] {
        queue.put(item).unwrap();
    }
    say!("{}", list((0..3).map(|_| queue.get().unwrap())));
}

fn the_least_first() {
    let queue = PriorityQueue::unbounded();
    for item in [3, 1, 2, 1] {
        queue.put(item).unwrap();
    }
    say!("{}", list((0..4).map(|_| queue.get().unwrap())));
}

fn a_getter_waits_for_a_putter() {
    let queue = Rc::new(Queue::unbounded());
    let from = queue.clone();
    let fiber = spawn(move || say!("got {}", from.get().unwrap()));
    yield_now();
    say!("putting");
    queue.put("item").unwrap();
    say!("put");
    fiber.wait();
}

fn getters_are_served_in_order() {
    let queue = Rc::new(Queue::unbounded());
    let fibers = ["a", "b", "c"].map(|name| getter(&queue, name));
    yield_now();
    for item in [1, 2, 3] {
        queue.put(item).unwrap();
    }
    join_all(fibers);
}

fn a_full_queue_makes_the_putter_wait() {
    let queue = Rc::new(Queue::bounded(2));
    let to = queue.clone();
    let fiber = spawn(move || {
        for item in [1, 2, 3] {
            to.put(item).unwrap();
            say!("put {item}");
        }
    });
    yield_now();
    say!("full {} ready {}", yes(queue.is_full()), yes(fiber.ready()));
    say!("got {}", queue.get().unwrap());
    fiber.wait();
    say!("{} items", queue.len());
}

fn putters_are_served_in_order() {
    let queue = Rc::new(Queue::bounded(1));
    queue.put(0).unwrap();
    let fibers = [1, 2, 3].map(|item| putter(&queue, item));
    yield_now();
    say!("{}", items(&queue, 4));
    join_all(fibers);
}

fn say_get<T>(got: Result<T, GetError>, empty: &str) {
    match got {
        Ok(_) => say!("got"),
        Err(GetError::Empty) => say!("{empty}"),
        Err(GetError::Closed) => say!("closed"),
    }
}

fn say_put<T>(put: Result<(), PutError<T>>, full: &str) {
    match put {
        Ok(()) => say!("put"),
        Err(PutError::Full(_)) => say!("{full}"),
        Err(PutError::Closed(_)) => say!("closed"),
    }
}

fn without_waiting() {
    let queue = Queue::bounded(1);
    say_get(queue.try_get(), "empty");
    queue.try_put(1).unwrap();
    say_put(queue.try_put(2), "full");
    say!("{}", queue.try_get().unwrap());
}

fn with_a_timeout() {
    let queue = Queue::bounded(1);
    say_get(queue.get_timeout(SHORT), "empty");
    queue.put_timeout(1, SHORT).unwrap();
    say_put(queue.put_timeout(2, SHORT), "full");
    say!("{} items", queue.len());
}

fn peek_leaves_the_item() {
    let queue = Queue::unbounded();
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    let peeked = (queue.peek().unwrap(), queue.peek().unwrap());
    let got = (queue.get().unwrap(), queue.get().unwrap());
    say!("{} {} {} {}", peeked.0, peeked.1, got.0, got.1);
}

fn a_killed_getter_takes_nothing() {
    let queue = Rc::new(Queue::unbounded());
    let (first, second) = (getter(&queue, "first"), getter(&queue, "second"));
    yield_now();
    first.kill_wait(None);
    queue.put(1).unwrap();
    second.wait();
}

fn a_killed_putter_puts_nothing() {
    let queue = Rc::new(Queue::bounded(1));
    queue.put(1).unwrap();
    let fiber = putter(&queue, 2);
    yield_now();
    fiber.kill_wait(None);
    say!("{}", queue.get().unwrap());
    yield_now();
    say!("empty {}", yes(queue.is_empty()));
}

fn a_getter_that_gave_up_takes_nothing() {
    let queue = Rc::new(Queue::unbounded());
    let from = queue.clone();
    spawn(move || say_get(from.get_timeout(SHORT), "gave up")).wait();
    queue.put(1).unwrap();
    yield_now();
    say!("{} item", queue.len());
}

fn a_producer_and_a_consumer() {
    let queue = Rc::new(Queue::bounded(1));
    let (to, from) = (queue.clone(), queue);
    let producer = spawn(move || {
        for item in 0..3 {
            to.put(item).unwrap();
        }
        to.shutdown(false);
    });
    let consumer = spawn(move || {
        for item in from.iter() {
            say!("got {item}");
        }
        say!("over");
    });
    join_all([producer, consumer]);
}

fn shutdown_lets_getters_empty_it() {
    let queue = Queue::unbounded();
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    queue.shutdown(false);
    if queue.put(3).is_err() {
        say!("put refused");
    }
    let got = (queue.get().unwrap(), queue.get().unwrap());
    say!("{} {}", got.0, got.1);
    if queue.get().is_err() {
        say!("get refused");
    }
}

fn shutdown_at_once_drops_the_items() {
    let queue = Queue::unbounded();
    queue.put(1).unwrap();
    queue.shutdown(true);
    if queue.get().is_err() {
        say!("get refused");
    }
}

fn shutdown_wakes_those_who_get() {
    let queue = Rc::new(Queue::<u32>::unbounded());
    let fibers = ["a", "b"].map(|name| {
        let queue = queue.clone();
        spawn(move || {
            if queue.get().is_err() {
                say!("{name} refused");
            }
        })
    });
    yield_now();
    queue.shutdown(false);
    join_all(fibers);
}

fn shutdown_wakes_those_who_put() {
    let queue = Rc::new(Queue::bounded(1));
    queue.put(1).unwrap();
    let fibers = ["a", "b"].map(|name| {
        let queue = queue.clone();
        spawn(move || {
            if queue.put(2).is_err() {
                say!("{name} refused");
            }
        })
    });
    yield_now();
    queue.shutdown(false);
    join_all(fibers);
    say!("{} item", queue.len());
}

fn join_waits_for_all_tasks() {
    let queue = Rc::new(JoinableQueue::unbounded());
    let from = queue.clone();
    let fiber = spawn(move || {
        for item in from.iter() {
            yield_now();
            say!("done {item}");
            from.task_done();
        }
    });
    for item in [1, 2] {
        queue.put(item).unwrap();
    }
    queue.join();
    say!("joined");
    fiber.kill_wait(None);
}

fn join_of_an_untouched_queue_returns() {
    let queue = JoinableQueue::unbounded();
    let joined = |timeout| yes(queue.join_timeout(timeout).is_ok());
    say!("{}", joined(Duration::ZERO));
    queue.put(1).unwrap();
    say!("{}", joined(SHORT));
    queue.get().unwrap();
    say!("{}", joined(SHORT));
    queue.task_done();
    say!("{}", joined(Duration::ZERO));
}

fn a_task_done_too_many() {
    let queue = JoinableQueue::unbounded();
    queue.put(1).unwrap();
    queue.task_done();
    // A mistake of the program, and so a panic.
    if swallow(|| queue.task_done()) {
        say!("too many");
    }
}

fn unfinished_tasks_are_counted() {
    let queue = JoinableQueue::unbounded();
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    queue.get().unwrap();
    say!("{} unfinished", queue.unfinished_tasks());
    queue.task_done();
    say!("{} unfinished", queue.unfinished_tasks());
}

fn a_channel_passes_from_hand_to_hand() {
    let channel = Rc::new(Channel::new());
    let to = channel.clone();
    let fiber = spawn(move || {
        for item in [1, 2] {
            say!("putting {item}");
            to.put(item).unwrap();
            say!("put {item}");
        }
    });
    yield_now();
    say!("getting");
    say!("got {}", channel.get().unwrap());
    say!("got {}", channel.get().unwrap());
    fiber.wait();
}

fn a_channel_holds_nothing() {
    let channel = Channel::new();
    say_put(channel.try_put(1), "nobody gets");
    say_get(channel.try_get(), "nobody puts");
    say_put(channel.put_timeout(1, SHORT), "nobody got");
    say_get(channel.get_timeout(SHORT), "nobody put");
}

fn a_channel_serves_in_order() {
    let channel = Rc::new(Channel::new());
    let fibers = [1, 2, 3].map(|item| {
        let channel = channel.clone();
        spawn(move || channel.put(item))
    });
    yield_now();
    say!("{}", list((0..3).map(|_| channel.get().unwrap())));
    join_all(fibers);
}

fn a_channel_with_a_getter_takes_at_once() {
    let channel = Rc::new(Channel::new());
    let from = channel.clone();
    let fiber = spawn(move || from.get().unwrap());
    yield_now();
    channel.try_put("item").unwrap();
    say!("{}", fiber.join().unwrap());
}

fn a_putter_of_a_channel_that_gave_up_leaves_nothing() {
    let channel = Rc::new(Channel::new());
    let to = channel.clone();
    spawn(move || say_put(to.put_timeout(1, SHORT), "gave up")).wait();
    let fiber = spawn(move || channel.get());
    sleep(LONG);
    say!("ready {}", yes(fiber.ready()));
    fiber.kill_wait(None);
}
