//! More stack in the middle of a call.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::panic::Location;

use crate::stack::region::{self, Slot};
use crate::stack::{Owner, StackPool, StackSize, page_bytes};

thread_local! {
    /// The ends of the stack that was asked about last, and [`region::generation`] then.
    static LAST: Cell<(usize, usize, usize)> = const { Cell::new((0, 0, 0)) };
    /// The ends of the thread's own stack; zeros before the first question.
    static OWN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Runs `f` here when `red_zone` bytes of stack are left, else on a stack of the given size from this thread's
/// pool, which goes back when `f` ends. For recursion whose depth is not known beforehand: call it once a level.
///
/// It works on any stack: a fiber's, a generator's, a greenlet's, the thread's own, one that `grow` gave. `f` may
/// do there what it may do here: wait, yield, switch, panic. Asking costs a few nanoseconds, another stack some
/// hundred.
///
/// ```
/// use warren_fiber::{StackSize, grow};
///
/// fn depth(levels: u32) -> u32 {
///     if levels == 0 {
///         return 0;
///     }
///     grow(32 << 10, StackSize::Large, || depth(levels - 1) + 1)
/// }
/// assert_eq!(depth(100_000), 100_000);
/// ```
///
/// # Suspends
/// When `f` does.
///
/// # Panics
/// When `f` does. When another stack is needed and cannot be mapped.
#[track_caller]
pub fn grow<R>(red_zone: usize, size: StackSize, f: impl FnOnce() -> R) -> R {
    if red_zone <= remaining_stack() { f() } else { on_another(size, Location::caller(), f) }
}

#[cold]
#[inline(never)]
fn on_another<R>(size: StackSize, caller: &'static Location<'static>, f: impl FnOnce() -> R) -> R {
    let stack = match StackPool::local().take(size) {
        Ok(stack) => stack,
        Err(error) => panic!("no room to grow: {error}"),
    };
    // SAFETY: this very code runs on that slot.
    let owner = region::find(stack_pointer()).and_then(|slot| unsafe { slot.owner() });
    let owner = owner.unwrap_or(Owner::new("code in `grow`", 0, caller));
    // SAFETY: the name is valid while the present stack is in use, and the other one is given back earlier.
    unsafe { stack.set_owner(owner) };
    corosensei::on_stack(stack, f)
}

/// How many bytes are left of the stack that this code runs on. 0 on a stack of someone else's making, whose end
/// is not known.
pub fn remaining_stack() -> usize {
    let here = stack_pointer();
    let (low, high, generation) = LAST.get();
    if low <= here && here < high && generation == region::generation() {
        return here - low;
    }
    look_up(here)
}

#[cold]
fn look_up(here: usize) -> usize {
    // First, so that what is found is at least as new.
    let generation = region::generation();
    let (low, high) = match region::find(here) {
        Some(Slot { low, bytes }) => (low + page_bytes(), low + bytes),
        None => own(),
    };
    if here < low || high <= here {
        return 0;
    }
    LAST.set((low, high, generation));
    here - low
}

/// The ends of the thread's own stack. Nothing lies between them when the system does not tell.
fn own() -> (usize, usize) {
    if OWN.get() == (0, 0) {
        OWN.set(ask_system().unwrap_or((1, 1)));
    }
    OWN.get()
}

fn ask_system() -> Option<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: asks about this very thread, and gives room for the answer.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut low, mut bytes, mut guard_bytes) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: filled in above; read, and then destroyed once.
    let answered = unsafe {
        let attributes = attributes.as_mut_ptr();
        let stack = libc::pthread_attr_getstack(attributes, &raw mut low, &raw mut bytes);
        let guard = libc::pthread_attr_getguardsize(attributes, &raw mut guard_bytes);
        libc::pthread_attr_destroy(attributes);
        stack == 0 && guard == 0
    };
    // The guard is counted in by some C libraries and not by others.
    answered.then(|| (low.addr() + guard_bytes, low.addr() + bytes))
}

/// The stack pointer, as far as it matters.
#[inline]
fn stack_pointer() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let pointer: usize;
        // SAFETY: reads a register.
        unsafe {
            std::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags))
        };
        pointer
    }
    #[cfg(target_arch = "aarch64")]
    {
        let pointer: usize;
        // SAFETY: reads a register.
        unsafe {
            std::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags))
        };
        pointer
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let here = 0_u8;
        std::hint::black_box(&raw const here).addr()
    }
}
