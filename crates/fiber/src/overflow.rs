//! What happens when a stack has run over its end: a report that names its owner, and the end of the process.
//!
//! The first touch of a guard is a `SIGSEGV` (or `SIGBUS`). The handler runs on the thread's alternate stack, for
//! there is no room on the other. The standard library gives each of its threads one; other threads get theirs
//! here. It may call nothing that locks or allocates: it walks the list of chunks, reads the owner that lies above
//! the top of the stack, and writes to the standard error. Faults elsewhere go to whatever handler was there before.

use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Once, OnceLock};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::stack::region::{self, Slot};
use crate::stack::{Owner, page_bytes};

const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// The handlers before ours, by the index in [`SIGNALS`].
static BEFORE: [OnceLock<libc::sigaction>; 2] = [const { OnceLock::new() }; 2];

thread_local! {
    /// The alternate stack of a thread that had none.
    static ALTERNATE: RefCell<Option<Alternate>> = const { RefCell::new(None) };
}

/// Installs the handler, once per process, and sees to it that this thread can run it.
pub(crate) fn watch() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        for (signal, before) in SIGNALS.into_iter().zip(&BEFORE) {
            install(signal, before);
        }
    });
    Alternate::ensure();
}

fn install(signal: libc::c_int, before: &OnceLock<libc::sigaction>) {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: only asks, and gives room for the answer. The answer is complete before the handler that reads it
    // is installed.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) };
    if asked != 0 {
        return;
    }
    // SAFETY: filled in above.
    let old = unsafe { old.assume_init() };
    // The handler lies in the third word whatever its type.
    let _ = before.set(old);
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
    let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    new.sa_sigaction = handle as *const () as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler is async-signal-safe, and of the type that `SA_SIGINFO` asks for.
    unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) };
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands over a valid description of a fault, which has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    let overflown = region::find(address)
        .filter(|slot| address < slot.low + page_bytes())
        .filter(|slot| runs_on(*slot, context));
    match overflown {
        Some(slot) => {
            // SAFETY: this thread runs on that slot, so a stack of it is in use.
            report(slot, unsafe { slot.owner() });
            // SAFETY: ends the process; async-signal-safe.
            unsafe { libc::abort() }
        }
        None => pass_on(signal, info, context),
    }
}

/// Whether the faulting code's stack pointer is in the slot: else a stray pointer has hit the guard.
fn runs_on(slot: Slot, context: *mut c_void) -> bool {
    // A call pushes below the stack pointer; nothing else reaches further than a page.
    let below = slot.low.saturating_sub(page_bytes());
    match stack_pointer(context) {
        Some(pointer) => (below..slot.low + slot.bytes).contains(&pointer),
        None => true,
    }
}

#[cfg(target_arch = "x86_64")]
fn stack_pointer(context: *mut c_void) -> Option<usize> {
    // SAFETY: the third argument of an `SA_SIGINFO` handler.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() }?;
    usize::try_from(context.uc_mcontext.gregs[libc::REG_RSP as usize]).ok()
}

#[cfg(target_arch = "aarch64")]
fn stack_pointer(context: *mut c_void) -> Option<usize> {
    // SAFETY: the third argument of an `SA_SIGINFO` handler.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() }?;
    usize::try_from(context.uc_mcontext.sp).ok()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn stack_pointer(_context: *mut c_void) -> Option<usize> {
    None
}

/// Lets the handler before ours decide.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let index = SIGNALS.iter().position(|known| *known == signal);
    let before = index.and_then(|index| BEFORE[index].get());
    let Some(before) = before.filter(|before| {
        before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN
    }) else {
        // Going back repeats the access, which then ends the process in the ordinary way.
        // SAFETY: all zeros is the default action; async-signal-safe.
        unsafe {
            let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
        return;
    };
    if before.sa_flags & libc::SA_SIGINFO == 0 {
        // SAFETY: a handler without `SA_SIGINFO` is a function of the signal's number.
        let handler: extern "C" fn(libc::c_int) =
            unsafe { std::mem::transmute(before.sa_sigaction) };
        handler(signal);
    } else {
        // SAFETY: a handler with `SA_SIGINFO` is a function of these three, which are the kernel's.
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(before.sa_sigaction) };
        handler(signal, info, context);
    }
}

/// Writes who has overflown what, and what to do.
fn report(slot: Slot, owner: Option<Owner>) {
    let mut digits = [0; 20];
    say("\n");
    match owner {
        Some(owner) => {
            say(owner.kind);
            if owner.id != 0 {
                say(" ");
                say(decimal(owner.id, &mut digits));
            }
            if let Some(name) = owner.name {
                say(" \"");
                // SAFETY: whoever set the owner keeps its name while the stack is in use.
                say(unsafe { name.as_ref() });
                say("\"");
            }
            say(", spawned at ");
            say(owner.made_at.file());
            say(":");
            say(decimal(owner.made_at.line().into(), &mut digits));
            say(",");
        }
        None => say("a coroutine"),
    }
    say(" has overflown its stack of ");
    say(decimal((slot.bytes >> 10) as u64, &mut digits));
    say(" KiB\ngive it a larger one (`stack_size`), or run its deep part in `grow`\n");
}

/// Writes to the standard error without a lock and without an allocation.
fn say(text: &str) {
    // SAFETY: `text` is readable, and `write` is async-signal-safe. There is nobody to tell of a failure.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[first..]).unwrap_or("?")
}

/// An alternate stack for signal handlers, for a thread that the standard library did not make.
struct Alternate(*mut c_void);

/// Room for the handler beside what the kernel saves, which is up to 11 KiB with the widest registers.
const ALTERNATE_BYTES: usize = 64 << 10;

impl Alternate {
    fn ensure() {
        // While the thread ends it needs none any more.
        let _ = ALTERNATE.try_with(|alternate| {
            let mut alternate = alternate.borrow_mut();
            if alternate.is_none() && Self::missing() {
                *alternate = Self::new();
            }
        });
    }

    fn missing() -> bool {
        let mut present = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: only asks, and gives room for the answer, which is complete when it succeeds.
        unsafe {
            libc::sigaltstack(ptr::null(), present.as_mut_ptr()) == 0
                && present.assume_init().ss_flags & libc::SS_DISABLE != 0
        }
    }

    fn new() -> Option<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice overlaps nothing.
        let low =
            unsafe { mmap_anonymous(ptr::null_mut(), ALTERNATE_BYTES, access, MapFlags::PRIVATE) };
        let alternate = Self(low.ok()?);
        let stack = libc::stack_t { ss_sp: alternate.0, ss_flags: 0, ss_size: ALTERNATE_BYTES };
        // SAFETY: the mapping stays until `drop`, on this same thread, has taken it away from the kernel.
        let set = unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
        (set == 0).then_some(alternate)
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        let none = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: ALTERNATE_BYTES,
        };
        // SAFETY: the thread's own setting; then nobody knows of the mapping any more.
        unsafe {
            libc::sigaltstack(&raw const none, ptr::null_mut());
            let _ = munmap(self.0, ALTERNATE_BYTES);
        }
    }
}
