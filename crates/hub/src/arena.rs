//! Where a hub keeps its fibers: in blocks that never move, so that a reference stays good while others come.
//!
//! A place is used again once its fiber has ended; its ticket and the fiber's number tell the two apart.

use std::cell::{Cell, RefCell, UnsafeCell};

use crate::fiber::Fiber;

/// Fibers allocated at once.
const BLOCK: usize = 64;

pub(crate) struct Arena {
    blocks: UnsafeCell<Vec<Box<[Fiber; BLOCK]>>>,
    /// Places without a fiber; the last one freed is the first one taken.
    free: RefCell<Vec<u32>>,
    live: Cell<usize>,
}

impl Arena {
    pub(crate) const fn new() -> Self {
        Self {
            blocks: UnsafeCell::new(Vec::new()),
            free: RefCell::new(Vec::new()),
            live: Cell::new(0),
        }
    }

    /// Fibers that live.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// A place for a new fiber.
    pub(crate) fn take(&self) -> &Fiber {
        self.live.set(self.live.get() + 1);
        let free = self.free.borrow_mut().pop();
        let index = match free {
            Some(index) => index,
            None => self.grow(),
        };
        self.get(index)
    }

    fn grow(&self) -> u32 {
        // SAFETY: no reference to the list of blocks lives beyond a call of this file's methods, none of which
        // calls another while it holds one; references to fibers point into the blocks, which stay where they are.
        let blocks = unsafe { &mut *self.blocks.get() };
        let first = blocks.len() * BLOCK;
        let name = |place: usize| u32::try_from(first + place).expect("fewer than 2^32 fibers");
        blocks.push(Box::new(std::array::from_fn(|place| Fiber::vacant(name(place)))));
        // The lowest first.
        self.free.borrow_mut().extend((1..BLOCK).rev().map(name));
        name(0)
    }

    /// Gives a place back. Its fiber has ended.
    pub(crate) fn give_back(&self, fiber: &Fiber) {
        self.live.set(self.live.get() - 1);
        self.free.borrow_mut().push(fiber.index);
    }

    /// The place of this number.
    pub(crate) fn get(&self, index: u32) -> &Fiber {
        let index = index as usize;
        // SAFETY: as in `grow`: the list is not changed while this shared reference to it lives, and the fiber's
        // block neither moves nor goes before the arena does.
        let blocks = unsafe { &*self.blocks.get() };
        &blocks[index / BLOCK][index % BLOCK]
    }

    /// All places, those without a fiber too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fiber> {
        // SAFETY: as in `grow`. Only the length is read here.
        let count = unsafe { (*self.blocks.get()).len() } * BLOCK;
        (0..count).map(|index| self.get(index as u32))
    }
}
