//! The medium's side of a transport. It calls the protocol, and only from the top of the loop.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;

use warren_hub::contain;

use super::input::Input;
use super::watch::Watched;
use super::{Close, Inner, Medium, State, Transport, WRITE_THROUGH_BYTES, WriteHalf};
use crate::layer::{Layer, Layered};
use crate::output::{pooled, recycle};
use crate::protocol::{PeerAddr, Protocol, Reason};

impl Transport {
    pub(crate) fn new(
        peer: PeerAddr,
        host: PeerAddr,
        protocol: Box<dyn Protocol>,
        medium: Box<dyn Medium>,
    ) -> Self {
        thread_local! {
            static LAST_ID: Cell<u64> = const { Cell::new(0) };
        }
        let id = LAST_ID.get() + 1;
        LAST_ID.set(id);
        Self(Rc::new(Inner {
            id,
            peer,
            host,
            ends: OnceCell::new(),
            state: Cell::new(State::Open),
            reading: Cell::new(true),
            read_ended: Cell::new(false),
            write_half: Cell::new(WriteHalf::Open),
            losing: Cell::new(false),
            producing: Cell::new(true),
            scheduled: Cell::new(false),
            told: Cell::new(false),
            limits: Cell::default(),
            failure: RefCell::default(),
            input: Input::default(),
            output: RefCell::default(),
            producer: RefCell::default(),
            layer: RefCell::default(),
            watched: Watched::default(),
            protocol: RefCell::new(Some(protocol)),
            medium,
        }))
    }

    pub(crate) fn made(&self) {
        self.tell(|protocol| protocol.connection_made(self));
    }

    /// Whether the medium is to be read: the protocol wants bytes, or its layer, for a handshake.
    pub(crate) fn reads(&self) -> bool {
        self.wants_data() || self.is_opening()
    }

    /// A handshake goes on also for a protocol that has paused, or closes the connection once its output is gone.
    fn is_opening(&self) -> bool {
        let layer = self.0.layer.borrow();
        layer.as_ref().is_some_and(|layered| layered.layer.is_opening())
            && matches!(self.0.state.get(), State::Open | State::Closing)
    }

    /// Whether reading is not paused.
    pub(crate) fn is_reading(&self) -> bool {
        self.0.reading.get()
    }

    /// Whether a producer is registered, and a streaming one.
    pub(crate) fn has_producer(&self) -> Option<bool> {
        self.0.producer.borrow().as_ref().map(|registered| registered.streaming)
    }

    /// Whether the protocol may be told of input at all.
    pub(super) fn hears(&self) -> bool {
        self.0.state.get() == State::Open && !self.0.losing.get()
    }

    /// The medium has brought bytes. What becomes of them in the buffer is of no importance.
    pub(crate) fn received(&self, data: &mut [u8]) {
        if self.0.layer.borrow().is_none() {
            self.deliver(data);
        } else {
            self.decode(data);
        }
    }

    /// As [`received`](Self::received), from a buffer that must stay as it is: a layer gets a copy.
    pub(crate) fn received_shared(&self, data: &[u8]) {
        if self.0.layer.borrow().is_none() {
            self.deliver(data);
        } else {
            self.decode(&mut data.to_vec());
        }
    }

    /// The medium has come to the end of its input.
    pub(crate) fn input_ended(&self) {
        let layer_ended = match self.0.layer.borrow_mut().as_mut() {
            Some(layered) => layered.layer.input_ended(),
            None => Ok(()),
        };
        if !self.has_input_ended() {
            self.end_input(layer_ended);
        }
    }

    /// Both directions have ended, so the connection has.
    pub(super) fn end_both(&self) {
        if self.0.read_ended.get() && self.0.write_half.get() == WriteHalf::Ended {
            self.lose_connection();
        }
    }

    /// Whether the peer has said that it will send no more.
    pub(crate) fn has_input_ended(&self) -> bool {
        self.0.read_ended.get() || self.holds_end()
    }

    /// The end of a turn: writes, tells the producers where the water stands, ends what was asked to end. True when the
    /// protocol was told of something: then another turn must follow, for what it has asked of others in theirs.
    pub(crate) fn settle(&self) -> bool {
        self.0.told.set(false);
        self.write_and_tell();
        self.0.told.get()
    }

    fn write_and_tell(&self) {
        self.0.scheduled.set(false);
        if self.0.layer.borrow().is_some() {
            self.decode_early();
        }
        self.deliver_held();
        let failure = self.0.failure.take();
        match self.0.state.get() {
            State::Lost => return,
            State::Aborting if failure.is_none() => return self.end(Close::Reset, Reason::Aborted),
            _ => {}
        }
        if let Some(reason) = failure {
            let how = match &reason {
                Reason::Panicked(_) => Close::Reset,
                // What the layer has to say of it, such as a TLS alert, is worth a try.
                Reason::Error(_) if self.has_layer() && self.flush().is_ok() => Close::Gracefully,
                _ => Close::AtOnce,
            };
            return self.end(how, reason);
        }
        if let Err(error) = self.flush() {
            return self.end(Close::AtOnce, Reason::Error(error));
        }
        let waiting = self.buffered();
        if waiting == 0 && !self.end_output() {
            return;
        }
        self.tell_producers(waiting);
    }

    /// All output is written: ends what was to end then. False when the connection is gone.
    fn end_output(&self) -> bool {
        let closing = self.0.state.get() == State::Closing;
        let ending =
            self.0.write_half.get() == WriteHalf::Ending && self.0.producer.borrow().is_none();
        let ending = ending && !self.is_opening();
        if !closing && !ending {
            return true;
        }
        if self.finish_layer() && self.buffered() > 0 {
            match self.flush() {
                Err(error) => {
                    self.end(Close::AtOnce, Reason::Error(error));
                    return false;
                }
                // The layer's last word waits for room: the medium will call again.
                Ok(()) if self.buffered() > 0 => return true,
                Ok(()) => {}
            }
        }
        if closing {
            // With the peer's end seen there is nothing to wait for.
            let read_ended = self.0.read_ended.get();
            let how = if read_ended { Close::AtOnce } else { Close::Gracefully };
            self.end(how, if read_ended { Reason::Done } else { Reason::Closed });
            return false;
        }
        if let Err(error) = self.0.medium.end_writing() {
            self.end(Close::AtOnce, Reason::Error(error));
            return false;
        }
        self.0.write_half.set(WriteHalf::Ended);
        self.tell(|protocol| protocol.write_connection_lost(self));
        self.end_both();
        true
    }

    fn tell_producers(&self, waiting: usize) {
        let limits = self.0.limits.get();
        if self.0.producing.get() && limits.high_bytes < waiting {
            self.0.producing.set(false);
            self.tell(|protocol| protocol.pause_producing(self));
        } else if !self.0.producing.get() && waiting <= limits.low_bytes {
            self.0.producing.set(true);
            self.tell(|protocol| protocol.resume_producing(self));
        }
        let registered = self.0.producer.borrow().clone();
        if let Some(registered) = registered.filter(|_| self.0.state.get() == State::Open)
            && registered.settle(waiting, limits)
        {
            self.0.told.set(true);
        }
    }

    fn flush(&self) -> io::Result<()> {
        if self.is_output_held() {
            return Ok(());
        }
        let mut output = self.0.output.borrow_mut();
        let mut layer = self.0.layer.borrow_mut();
        let Some(Layered { layer, wire, .. }) = layer.as_deref_mut() else {
            return self.send(&mut output);
        };
        loop {
            let before = (output.len(), wire.len());
            let encoded = layer.encode(&mut output, wire);
            // Also what it has to say of an error.
            self.send(wire)?;
            encoded?;
            // The layer encodes as much as should wait; if the system took all of it, more can follow. Also when that
            // was what had waited since an earlier turn: nobody would say once more that there is room.
            if output.is_empty() || !wire.is_empty() || before == (output.len(), 0) {
                return Ok(());
            }
        }
    }

    /// The protocol has been told all that was read. Large answers leave now: at the end of the turn their bytes, and what
    /// the system holds of the connection, would no longer be in the processor's cache. For small ones, it is better to
    /// read from many connections and then to write to many: the cache holds that code instead.
    pub(crate) fn answered(&self) {
        if WRITE_THROUGH_BYTES <= self.0.output.borrow().len()
            && matches!(self.0.state.get(), State::Open | State::Closing)
            && self.0.failure.borrow().is_none()
        {
            if let Err(error) = self.flush() {
                *self.0.failure.borrow_mut() = Some(Reason::Error(error));
            }
            // Producers may wait to hear that there is room: the bytes may have waited since an earlier turn.
            self.schedule();
        }
    }

    fn end(&self, how: Close, reason: Reason) {
        self.0.medium.close(how);
        self.lost(reason);
    }

    /// The end: the protocol hears why, and is dropped. The medium has been closed.
    pub(crate) fn lost(&self, reason: Reason) {
        self.0.state.set(State::Lost);
        self.0.output.borrow_mut().clear();
        self.drop_input();
        self.drop_watchers();
        let layer = self.0.layer.take();
        drop(layer);
        let producer = self.0.producer.take();
        if let Some(producer) = producer {
            producer.tell(|producer| producer.stop_producing());
        }
        let protocol = self.0.protocol.borrow_mut().take();
        if let Some(mut protocol) = protocol {
            self.0.told.set(true);
            // What has gone wrong is in the log, and nobody is left to be told.
            let _ = contain("a protocol", move || {
                protocol.connection_lost(&reason);
                drop(protocol);
            });
        }
    }

    /// There may be room for output again.
    pub(crate) fn settle_later(&self) {
        self.schedule();
    }

    pub(crate) fn close_medium(&self) {
        self.0.medium.close(Close::AtOnce);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.0.state.get() == State::Lost
    }

    /// Ends the connection for `reason` at the end of this turn.
    pub(crate) fn fail(&self, reason: Reason) {
        if matches!(self.0.state.get(), State::Open | State::Closing) {
            self.0.state.set(State::Aborting);
            *self.0.failure.borrow_mut() = Some(reason);
            self.schedule();
        }
    }

    pub(super) fn tell(&self, call: impl FnOnce(&mut dyn Protocol)) {
        self.0.told.set(true);
        let told = match self.0.protocol.borrow_mut().as_mut() {
            Some(protocol) => contain("a protocol", || call(protocol.as_mut())),
            None => Ok(()),
        };
        if let Err(text) = told {
            self.fail(Reason::Panicked(text));
        }
    }
}

/// With a layer between protocol and medium.
impl Transport {
    /// Puts `layer` between protocol and medium. What was written before leaves as it is, what comes in from now on
    /// passes through the layer, `rest` first: bytes that were received already. `None` when there is one already.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(crate) fn add_layer(&self, layer: Box<dyn Layer>, rest: &[u8]) -> Option<()> {
        let mut place = self.0.layer.borrow_mut();
        if place.is_some() {
            return None;
        }
        let wire = self.0.output.take();
        let early = [rest, &self.take_input()].concat();
        *place = Some(Box::new(Layered::new(layer, wire, early)));
        drop(place);
        self.schedule();
        Some(())
    }

    /// Calls `f` with the layer, if there is one.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(crate) fn with_layer<R>(&self, f: impl FnOnce(&dyn Layer) -> R) -> Option<R> {
        self.0.layer.borrow().as_ref().map(|layered| f(layered.layer.as_ref()))
    }

    /// Prepared input has come. What the protocol does not want of it.
    pub(crate) fn received_prepared(
        &self,
        input: Box<dyn Any + Send>,
    ) -> Option<Box<dyn Any + Send>> {
        let mut rest = None;
        self.tell(|protocol| rest = protocol.prepared_received(self, input));
        rest
    }

    /// TLS ends on the medium's far side, and its handshake has succeeded.
    #[cfg(feature = "tls")]
    pub(crate) fn secured(&self) {
        if self.hears() {
            self.tell(|protocol| protocol.handshake_completed(self));
        }
    }

    /// What the medium knows of TLS on its far side.
    #[cfg(feature = "tls")]
    pub(crate) fn far_tls_info(&self) -> Option<crate::tls::TlsInfo> {
        self.0.medium.tls_info()
    }

    fn has_layer(&self) -> bool {
        self.0.layer.borrow().is_some()
    }

    /// Decodes what came before the layer did.
    fn decode_early(&self) {
        let holds = self.0.layer.borrow().as_ref().is_some_and(|layered| !layered.early.is_empty());
        if holds && self.reads() {
            self.decode(&mut []);
        }
    }

    /// Keeps bytes for the layer.
    pub(super) fn decode_later(&self, data: &[u8]) {
        if let Some(layered) = self.0.layer.borrow_mut().as_mut() {
            layered.early.extend_from_slice(data);
        }
    }

    fn decode(&self, data: &mut [u8]) {
        let mut plain = pooled();
        let decoded = match self.0.layer.borrow_mut().as_mut() {
            Some(layered) => layered.decode(data, &mut plain),
            None => return,
        };
        // The layer may have something to say.
        self.schedule();
        if decoded.opened && self.hears() {
            self.tell(|protocol| protocol.handshake_completed(self));
        }
        self.deliver(&plain);
        recycle(plain);
        if let Some(end) = decoded.end {
            self.end_input(end);
        }
    }

    /// The layer's last word. False without a layer, and when it was said before.
    fn finish_layer(&self) -> bool {
        match self.0.layer.borrow_mut().as_mut() {
            Some(layered) if !layered.finished => {
                layered.finished = true;
                let Layered { layer, wire, .. } = &mut **layered;
                layer.finish(wire);
                true
            }
            _ => false,
        }
    }
}
