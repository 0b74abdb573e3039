//! Input that has been received and is still to be told.
//!
//! ```text
//!   medium --> (layer) --> held: [ told | not told ] --> data_received
//!                            ^---------- unread -----------'
//! ```
//! A protocol that stops in the middle of what it was given hands the rest back, and is given it again when it goes on:
//! so one that cuts frames out of a stream needs no second buffer for those it may not tell yet. Nearly always nothing
//! is held, and bytes go from the medium's buffer to the protocol.

use std::cell::{Cell, RefCell};
use std::io;

use super::Transport;
use crate::protocol::Reason;

/// What comes before anything that the medium brings.
#[derive(Default)]
pub(super) struct Input {
    held: RefCell<Option<Box<Held>>>,
    /// Whether there is any: a cheaper look.
    any: Cell<bool>,
    telling: Cell<Telling>,
    /// How many bytes of what is being told were handed back.
    unread: Cell<usize>,
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of them have been told.
    told: usize,
    /// How the input ends behind them, once it has.
    end: Option<io::Result<()>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Telling {
    #[default]
    Nothing,
    /// `data_received` is being called.
    Data,
    /// It has put a layer under itself: what it hands back is the layer's.
    Layered,
}

impl Transport {
    /// Whether a protocol is to be told of more input now: reading is not paused, and the connection is not being
    /// closed. One that cuts frames out of a stream asks before each, and else hands the rest back by
    /// [`unread`](Self::unread).
    pub fn wants_data(&self) -> bool {
        self.0.reading.get()
            && self.hears()
            && self.0.input.telling.get() != Telling::Layered
            && !self.is_input_held()
    }

    /// Hands back the last `count` bytes of what [`data_received`](crate::Protocol::data_received) was given, from
    /// within that call; more than it was given are taken for all. It is called with them again before it hears of
    /// anything else: once reading is resumed, or at the end of this turn when it is not paused. They are dropped when
    /// the connection is being closed, and decoded when TLS has been started.
    ///
    /// No byte is moved twice, also when a large piece is taken one frame after the other.
    pub fn unread(&self, count: usize) {
        self.0.input.unread.set(count);
    }

    /// Appends to the input, as if the peer had sent it: told at the end of this turn, or once reading is resumed.
    pub(crate) fn push_input(&self, bytes: &[u8]) {
        if !bytes.is_empty() && self.hears() {
            self.hold(bytes);
            self.schedule();
        }
    }

    /// Bytes that have been received and not been told.
    pub(crate) fn held_bytes(&self) -> usize {
        let held = self.0.input.held.borrow();
        held.as_ref().map_or(0, |held| held.bytes.len() - held.told)
    }

    /// Forgets what has been received and not been told.
    pub(crate) fn clear_input(&self) {
        if let Some(held) = &mut *self.0.input.held.borrow_mut() {
            held.bytes = Vec::new();
            held.told = 0;
        }
    }

    /// Tells of `data`, after what is held.
    pub(super) fn deliver(&self, data: &[u8]) {
        if data.is_empty() || !self.hears() {
            return;
        }
        if self.0.input.any.get() || !self.wants_data() {
            self.hold(data);
            return self.deliver_held();
        }
        let unread = self.tell_data(data);
        if 0 < unread {
            self.hold_before(data[data.len() - unread..].to_vec(), 0, None);
        }
    }

    /// Tells of what is held, if that is wanted.
    pub(super) fn deliver_held(&self) {
        if !self.0.input.any.get() || !self.wants_data() {
            return;
        }
        let Some(held) = self.0.input.held.take() else { return };
        self.0.input.any.set(false);
        let Held { bytes, told, end } = *held;
        let unread = if told < bytes.len() { self.tell_data(&bytes[told..]) } else { 0 };
        if 0 < unread {
            let told = bytes.len() - unread;
            return self.hold_before(bytes, told, end);
        }
        match end {
            Some(end) if self.0.input.any.get() => self.hold_before(Vec::new(), 0, Some(end)),
            Some(end) => self.end_input(end),
            None => {}
        }
    }

    /// The input has ended: after what is held, the protocol is told.
    pub(super) fn end_input(&self, end: io::Result<()>) {
        if !self.hears() {
            // A handshake for the last output has failed: that will never leave.
            if let Err(error) = end {
                self.fail(Reason::Error(error));
            }
            return;
        }
        if let Some(held) = &mut *self.0.input.held.borrow_mut() {
            held.end.get_or_insert(end);
            return;
        }
        match end {
            Ok(()) => {
                self.0.read_ended.set(true);
                self.tell(|protocol| protocol.read_connection_lost(self));
                self.end_both();
            }
            Err(error) => self.fail(Reason::Error(error)),
        }
    }

    /// Whether the input has ended behind what is held.
    pub(super) fn holds_end(&self) -> bool {
        self.0.input.any.get()
            && self.0.input.held.borrow().as_ref().is_some_and(|held| held.end.is_some())
    }

    /// Reading goes on: what is held is told at the end of this turn.
    pub(super) fn input_resumed(&self) {
        if self.0.input.any.get() {
            self.schedule();
        }
    }

    /// A layer has been added: what has been received and not been told is the layer's. Gives what is held.
    pub(super) fn take_input(&self) -> Vec<u8> {
        if self.0.input.telling.get() == Telling::Data {
            self.0.input.telling.set(Telling::Layered);
        }
        match &mut *self.0.input.held.borrow_mut() {
            // The end that may be noted stays.
            Some(held) => std::mem::take(&mut held.bytes).split_off(std::mem::take(&mut held.told)),
            None => Vec::new(),
        }
    }

    pub(super) fn drop_input(&self) {
        self.0.input.any.set(false);
        let held = self.0.input.held.take();
        drop(held);
    }

    /// Calls the protocol. How many bytes at the end it has handed back.
    fn tell_data(&self, data: &[u8]) -> usize {
        self.0.input.telling.set(Telling::Data);
        self.0.input.unread.set(0);
        self.tell(|protocol| protocol.data_received(self, data));
        let unread = self.0.input.unread.get().min(data.len());
        if self.0.input.telling.replace(Telling::Nothing) == Telling::Layered {
            self.decode_later(&data[data.len() - unread..]);
            return 0;
        }
        unread
    }

    /// Appends to what is held.
    fn hold(&self, data: &[u8]) {
        self.0.input.any.set(true);
        let mut held = self.0.input.held.borrow_mut();
        held.get_or_insert_default().bytes.extend_from_slice(data);
    }

    /// Puts bytes, `told` of which have been told, before what is held.
    fn hold_before(&self, mut bytes: Vec<u8>, told: usize, end: Option<io::Result<()>>) {
        let mut held = self.0.input.held.borrow_mut();
        if let Some(later) = held.take() {
            bytes.extend_from_slice(&later.bytes[later.told..]);
        }
        *held = Some(Box::new(Held { bytes, told, end }));
        drop(held);
        self.0.input.any.set(true);
        // If reading is paused, in vain.
        self.schedule();
    }
}
