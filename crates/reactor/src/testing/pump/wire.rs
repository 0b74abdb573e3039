//! A side's medium: where its transport leaves the bytes.

use std::io::{self, IoSlice};
use std::rc::Weak;

use super::{Core, Side};
use crate::output::{Output, SLICES_MAX};
use crate::transport::{Close, Medium, Transport};

/// The medium of one side.
pub(super) struct Wire {
    pub(super) core: Weak<Core>,
    pub(super) side: Side,
}

impl Medium for Wire {
    fn schedule(&self, _transport: &Transport) {
        // Not while it is being made: what is wanted then is looked at in the first step.
        if let Some(core) = self.core.upgrade() {
            core.end(self.side).scheduled.set(true);
            core.arm();
        }
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        let Some(core) = self.core.upgrade() else { return Ok(()) };
        let end = core.end(self.side);
        if output.is_empty() {
            return Ok(());
        }
        if end.mute.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut out = end.out.borrow_mut();
        if out.finished {
            // Cut on the way, which it cannot know.
            output.clear();
            return Ok(());
        }
        let room = out.room();
        out.starved |= room < output.len();
        let data = first(output, room);
        if !data.is_empty() {
            out.send(data, core.now());
        }
        Ok(())
    }

    fn end_writing(&self) -> io::Result<()> {
        let Some(core) = self.core.upgrade() else { return Ok(()) };
        if core.end(self.side).mute.get() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        core.note(|| format!("{} ends its output", self.side.name()));
        core.end(self.side).out.borrow_mut().finish(core.now());
        core.arm();
        Ok(())
    }

    fn resume_reading(&self) {
        if let Some(core) = self.core.upgrade() {
            core.arm();
        }
    }

    fn close(&self, how: Close) {
        let Some(core) = self.core.upgrade() else { return };
        let end = core.end(self.side);
        core.note(|| format!("{} closes: {how:?}", self.side.name()));
        end.closed.set(true);
        match how {
            Close::Gracefully | Close::AtOnce => end.out.borrow_mut().finish(core.now()),
            Close::Reset => end.out.borrow_mut().reset(core.now()),
        }
        core.arm();
    }
}

/// Takes the first `count` bytes, or what there is.
fn first(output: &mut Output, count: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(count.min(output.len()));
    while data.len() < count && !output.is_empty() {
        let before = data.len();
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = output.slices(&mut slices);
        for slice in &slices[..filled] {
            data.extend_from_slice(&slice[..slice.len().min(count - data.len())]);
        }
        output.consume(data.len() - before);
    }
    data
}
