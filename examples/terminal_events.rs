//! Keys and clicks of a terminal as named events: press keys, click with the mouse, change the size; `q` ends it.
//!
//! A thread waits for the terminal, which nothing but a blocking call can do portably, and posts what comes to a queue
//! that the loop runs. So the handlers run one after the other on the loop's thread, and may use all of the reactor.
//!
//! `cargo run --example terminal_events`

use std::io::{self, Write, stdout};
use std::thread;

use crossterm::event::{
    DisableMouseCapture, EnableMouseCapture, Event as TerminalEvent, KeyCode, KeyEvent,
    KeyEventKind, KeyModifiers, MouseButton, MouseEventKind,
};
use crossterm::{execute, terminal};
use warren::reactor::events::{EventError, EventPoster, EventQueue, EventType};
use warren::reactor::{call_when_running, run, stop};

struct Click {
    column: u16,
    row: u16,
    button: MouseButton,
}

struct Resize {
    columns: u16,
    rows: u16,
}

const ON_KEY_DOWN: EventType<KeyEvent> = EventType::new("on_key_down");
const ON_CLICK: EventType<Click> = EventType::new("on_click");
const ON_RESIZE: EventType<Resize> = EventType::new("on_resize");

/// The terminal cannot be read any more.
const ON_LOST: EventType<io::Error> = EventType::new("on_lost");

fn main() -> io::Result<()> {
    // Without echo, without lines, with the mouse; dropping it puts all back.
    let prepared = Terminal::prepare()?;
    run(|| -> io::Result<EventQueue> {
        let events = EventQueue::new().on_loop();
        register(&events).map_err(io::Error::other)?;
        let poster = events.poster();
        thread::Builder::new().name("terminal".into()).spawn(move || read(&poster))?;
        call_when_running(|| say("press keys, click, or press q to quit"));
        // Kept until the reactor stops.
        Ok(events)
    })?;
    drop(prepared);
    println!("goodbye");
    Ok(())
}

fn register(events: &EventQueue) -> Result<(), EventError> {
    events.register(ON_KEY_DOWN, |key| say(&format!("on_key_down: {}", key.code)))?;
    // First of all handlers: the others do not hear of these keys.
    events.register_at(ON_KEY_DOWN, 1, |key| {
        let interrupt = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
        if key.code == KeyCode::Char('q') || interrupt {
            key.stop_propagation();
            // Keys may come faster than the reactor stops.
            let _ = stop();
        }
    })?;
    events.register(ON_LOST, |error| {
        say(&format!("on_lost: {}", error.payload()));
        error.queue().close();
        let _ = stop();
    })?;
    let mut clicks = 0;
    events.register_mut(ON_CLICK, move |click| {
        clicks += 1;
        let (button, column, row) = (click.button, click.column, click.row);
        say(&format!("on_click: {button:?} at {column}, {row}, click number {clicks}"));
    })?;
    events.register(ON_RESIZE, |size| {
        say(&format!("on_resize: {} columns, {} rows", size.columns, size.rows));
    })?;
    Ok(())
}

/// Posts what comes from the terminal, until one of both is gone.
fn read(poster: &EventPoster) {
    loop {
        let posted = match crossterm::event::read() {
            Ok(event) => post(poster, event),
            Err(error) => poster.post(ON_LOST, error),
        };
        match posted {
            // Somebody leans on the keyboard: what does not fit is left out.
            Ok(()) | Err(EventError::Full { .. }) => {}
            Err(_) => return,
        }
    }
}

fn post(poster: &EventPoster, event: TerminalEvent) -> Result<(), EventError> {
    match event {
        TerminalEvent::Key(key) if key.kind == KeyEventKind::Press => poster.post(ON_KEY_DOWN, key),
        TerminalEvent::Mouse(mouse) => match mouse.kind {
            MouseEventKind::Down(button) => {
                poster.post(ON_CLICK, Click { column: mouse.column, row: mouse.row, button })
            }
            _ => Ok(()),
        },
        TerminalEvent::Resize(columns, rows) => poster.post(ON_RESIZE, Resize { columns, rows }),
        _ => Ok(()),
    }
}

/// A terminal in raw mode does not return the carriage by itself.
fn say(text: &str) {
    let mut out = stdout().lock();
    // A terminal that has gone away reads nothing.
    let _ = write!(out, "{text}\r\n").and_then(|()| out.flush());
}

struct Terminal;

impl Terminal {
    fn prepare() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let prepared = Self;
        execute!(stdout(), EnableMouseCapture)?;
        Ok(prepared)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = execute!(stdout(), DisableMouseCapture);
        let _ = terminal::disable_raw_mode();
    }
}
