//! Named events with payloads: handlers in order, by priority, once, removed; an event that is stopped; handlers that
//! fail; events that wait in a queue.
//!
//! `cargo run --example event_queue`

use warren::reactor::events::{Event, EventError, EventQueue, EventType};

struct Click {
    column: u16,
    row: u16,
}

struct KeyDown {
    key: char,
}

// The name and the payload's type, together: the compiler sees to it that they stay so.
const ON_CLICK: EventType<Click> = EventType::new("on_click");
const ON_KEY_DOWN: EventType<KeyDown> = EventType::new("on_key_down");

fn main() -> Result<(), EventError> {
    let events = EventQueue::with_limit(3);
    events.on_failure(|failure| println!("failure: {failure}"));

    events.register(ON_CLICK, |click| println!("click at {}, {}", click.column, click.row))?;
    events.register_once(ON_CLICK, |_| println!("the first click"))?;
    let mut clicks = 0;
    let counter = events.register_mut(ON_CLICK, move |_| {
        clicks += 1;
        println!("click number {clicks}");
    })?;
    events.fire(ON_CLICK, Click { column: 3, row: 4 })?;
    events.fire(ON_CLICK, Click { column: 5, row: 6 })?;
    events.unregister(counter);
    events.fire(ON_CLICK, Click { column: 7, row: 8 })?;

    events.register(ON_KEY_DOWN, |key| println!("key {}", key.key))?;
    // Before the others: it keeps a key from them.
    events.register_at(ON_KEY_DOWN, 10, |key| {
        if key.key == 'x' {
            println!("x is not for the others");
            key.stop_propagation();
        }
    })?;
    events.register(ON_KEY_DOWN, |key| match key.key {
        'e' => Err("e is for error"),
        'p' => panic!("p is for panic"),
        _ => Ok(()),
    })?;
    std::panic::set_hook(Box::new(|_| {}));
    for key in ['a', 'x', 'e', 'p'] {
        let fired = events.fire(ON_KEY_DOWN, KeyDown { key })?;
        println!("{} handlers were called, {} failed", fired.called, fired.failed);
    }

    // What is posted waits for its turn, and what a handler posts comes after all that waits already.
    events.register("on_countdown", |count: &Event<u32>| {
        println!("{}", **count);
        match **count {
            1 => count.queue().post("on_lift_off", ()),
            more => count.queue().post("on_countdown", more - 1),
        }
    })?;
    events.register("on_lift_off", |_: &Event<()>| println!("lift-off"))?;
    events.post("on_countdown", 3_u32)?;
    events.post(ON_CLICK, Click { column: 0, row: 0 })?;
    println!("{} events wait", events.len());
    println!("{} events were run", events.run());

    // A queue is bounded, and knows what its events carry.
    for row in 0..4 {
        if let Err(error) = events.post(ON_CLICK, Click { column: 0, row }) {
            println!("{error}");
        }
    }
    if let Err(error) = events.fire("on_click", "somewhere") {
        println!("{error}");
    }
    Ok(())
}
