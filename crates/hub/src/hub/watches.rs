//! Descriptors and hooks that the loop knows.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

use super::{Hub, IoSlot};
use crate::driver::Source;
use crate::io::{IoHandler, Readiness, Registration};
use crate::switch::SwitchHook;
use crate::turn::{Phase, TurnHook};

impl Hub {
    pub(crate) fn register(
        &self,
        fd: BorrowedFd<'_>,
        handler: Rc<dyn IoHandler>,
    ) -> io::Result<Registration> {
        let key = self.enter_handler(handler, |key| self.driver.watch_fd(fd, key))?;
        Ok(Registration::of_fd(self, fd.as_raw_fd(), key))
    }

    /// As [`register`](Self::register), for a source of the driver's.
    pub(crate) fn watch(&self, source: &Source, handler: Rc<dyn IoHandler>) -> io::Result<u64> {
        self.enter_handler(handler, |key| self.driver.watch(source, key))
    }

    fn enter_handler(
        &self,
        handler: Rc<dyn IoHandler>,
        watch: impl FnOnce(u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let generation = self.last_io_generation.get().wrapping_add(1) & (u32::MAX >> 1);
        self.last_io_generation.set(generation);
        let mut io = self.io.borrow_mut();
        let entry = io.vacant_entry();
        let key = u64::from(generation) << 32 | entry.key() as u64;
        watch(key)?;
        entry.insert(IoSlot { handler, generation });
        Ok(key)
    }

    pub(crate) fn deregister(&self, fd: RawFd, key: u64) {
        // SAFETY: whoever owns a registration drops it before the descriptor, as its documentation asks. Were
        // it closed already, the kernel would answer EBADF, or drop a registration of ours.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        self.leave_handler(key, || self.driver.unwatch_fd(fd, key));
    }

    pub(crate) fn unwatch(&self, source: &Source, key: u64) {
        self.leave_handler(key, || self.driver.unwatch(source, key));
    }

    fn leave_handler(&self, key: u64, unwatch: impl FnOnce() -> io::Result<()>) {
        let index = key as u32 as usize;
        let slot = {
            let mut io = self.io.borrow_mut();
            match io.get(index) {
                Some(slot) if slot.generation == (key >> 32) as u32 => io.remove(index),
                _ => return,
            }
        };
        if let Err(error) = unwatch() {
            tracing::warn!(%error, "a descriptor was closed before its registration was dropped");
        }
        drop(slot);
    }

    pub(crate) fn ready_again(&self, key: u64, ready: Readiness) {
        self.io_again.borrow_mut().push((key, ready));
    }

    pub(crate) fn add_hook(&self, phase: Phase, hook: Rc<dyn TurnHook>) {
        self.hooks.borrow_mut()[phase as usize].push(hook);
    }

    pub(crate) fn remove_hook(&self, phase: Phase, hook: &Rc<dyn TurnHook>) {
        let removed = {
            let hooks = &mut self.hooks.borrow_mut()[phase as usize];
            let index = hooks.iter().position(|other| Rc::ptr_eq(other, hook));
            index.map(|index| hooks.remove(index))
        };
        drop(removed);
    }

    pub(crate) fn add_switch_hook(&self, hook: Rc<dyn SwitchHook>) {
        self.switch_hooks.borrow_mut().push(hook);
        self.has_switch_hooks.set(true);
    }

    pub(crate) fn remove_switch_hook(&self, hook: &Rc<dyn SwitchHook>) {
        let removed = {
            let mut hooks = self.switch_hooks.borrow_mut();
            let index = hooks.iter().position(|other| Rc::ptr_eq(other, hook));
            let removed = index.map(|index| hooks.remove(index));
            self.has_switch_hooks.set(!hooks.is_empty());
            removed
        };
        drop(removed);
    }
}
