//! Whose stack it is, kept above the top of the stack itself.

use std::panic::Location;
use std::ptr::{self, NonNull};

use corosensei::stack::STACK_ALIGNMENT;

use super::region::Slot;

/// Tops of neighbouring stacks are shifted by a cache line each, so that they do not all compete for
/// the same cache sets.
const COLOUR_BYTES: usize = 64;
/// After so many neighbours the shift starts again.
const COLOURS: usize = 32;
const _: () = assert!(COLOUR_BYTES.is_multiple_of(STACK_ALIGNMENT));
/// Room for the [`Owner`] above the top of a stack.
const OWNER_BYTES: usize = 64;
const _: () = assert!(size_of::<Option<Owner>>() <= OWNER_BYTES);
const _: () = assert!(OWNER_BYTES.is_multiple_of(STACK_ALIGNMENT));

/// Whose stack it is: what the report of an overflow says.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub(crate) kind: &'static str,
    pub(crate) id: u64,
    pub(crate) name: Option<NonNull<str>>,
    pub(crate) made_at: &'static Location<'static>,
}

impl Owner {
    /// `kind` is the noun the report begins with, such as "fiber"; `id` its number, 0 when it has none;
    /// `made_at` where the program asked for it.
    pub const fn new(kind: &'static str, id: u64, made_at: &'static Location<'static>) -> Self {
        Self { kind, id, name: None, made_at }
    }

    /// With a name, which [`Stack::set_owner`](super::Stack::set_owner) wants to stay where it is.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(NonNull::from(name)), ..self }
    }
}

impl Slot {
    /// Where the stack begins, going down. Above lies its owner.
    pub(crate) fn top(self) -> usize {
        let colour = (self.low / self.bytes) % COLOURS * COLOUR_BYTES;
        self.low + self.bytes - OWNER_BYTES - colour
    }

    /// Who has noted to own it.
    ///
    /// # Safety
    /// A stack of this slot is in use and was taken on this thread.
    pub(crate) unsafe fn owner(self) -> Option<Owner> {
        // SAFETY: the place is mapped, and was written when the stack was taken.
        unsafe { ptr::with_exposed_provenance::<Option<Owner>>(self.top()).read() }
    }

    /// # Safety
    /// A stack of this slot is in use, or about to be, and belongs to the caller.
    pub(super) unsafe fn set_owner(self, owner: Option<Owner>) {
        let place = ptr::with_exposed_provenance_mut::<Option<Owner>>(self.top());
        // SAFETY: the `OWNER_BYTES` above the top belong to this slot, are mapped and writable, and no stack
        // reaches them; a multiple of 16 is aligned enough.
        unsafe { place.write(owner) }
    }
}
