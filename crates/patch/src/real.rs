//! The functions that ours stand in for, and how ours are made.
//!
//! The linker lets a symbol of the program go before one of the C library, for the program and for every
//! library that is loaded; `dlsym(RTLD_NEXT)` finds the one behind ours. Each is looked up once: by
//! [`Patch::apply`](crate::Patch::apply), or by the first call if that comes earlier. A successful look-up
//! does not allocate.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where a real function lies.
pub(crate) struct Address {
    name: &'static CStr,
    place: AtomicPtr<c_void>,
}

impl Address {
    pub(crate) const fn new(name: &'static [u8]) -> Self {
        match CStr::from_bytes_with_nul(name) {
            Ok(name) => Self { name, place: AtomicPtr::new(std::ptr::null_mut()) },
            Err(_) => panic!("the name of a function ends with its only zero"),
        }
    }

    /// The function, looked up if it has not been.
    pub(crate) fn get(&self) -> *mut c_void {
        let place = self.place.load(Ordering::Relaxed);
        if place.is_null() { self.look_up() } else { place }
    }

    #[cold]
    fn look_up(&self) -> *mut c_void {
        // SAFETY: a handle and a string as dlsym wants them.
        let place = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if place.is_null() {
            // No panic: its message would be written by one of ours.
            // SAFETY: ends the process.
            unsafe { libc::abort() }
        }
        self.place.store(place, Ordering::Relaxed);
        place
    }
}

/// Makes for each function one of the same name in a module `real`, which calls the real one.
macro_rules! real {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty;)*) => {
        /// The real functions, by their names.
        #[allow(clippy::too_many_arguments)]
        pub(crate) mod real {
            use super::*;

            #[allow(non_upper_case_globals)]
            mod addresses {
                use crate::real::Address;

                $(
                    pub(super) static $name: Address =
                        Address::new(concat!(stringify!($name), "\0").as_bytes());
                )*
            }

            $(
                /// Calls the real function.
                #[allow(dead_code)]
                pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
                    type Function = unsafe extern "C" fn($($type),*) -> $result;
                    // SAFETY: the C library declares the function of this name so.
                    let function: Function = unsafe { std::mem::transmute(addresses::$name.get()) };
                    // SAFETY: our caller vouches for the arguments as the function's own callers do.
                    unsafe { function($($argument),*) }
                }
            )*

            /// Looks all of them up.
            pub(crate) fn look_up() {
                $( addresses::$name.get(); )*
            }
        }
    };
}

/// Makes functions of the C library's names: each calls the real one when it may block its thread, and else
/// its block, which gives the result or an error number.
///
/// ```text
/// Sockets(Some(fd)) fn recv(fd: c_int, ...) -> ssize_t, |call| { ... }
///   part    descriptor  the function as C declares it      what it does on a fiber
/// ```
macro_rules! hooks {
    ($(
        $(#[doc = $doc:literal])*
        $part:ident($fd:expr)
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty, |$call:ident| $body:block
    )*) => {
        crate::real::real! { $( fn $name($($argument: $type),*) -> $result; )* }

        $(
            $(#[doc = $doc])*
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                match crate::call::Call::begin(stringify!($name), crate::state::Part::$part, $fd) {
                    // SAFETY: what our caller passed, unchanged.
                    None => unsafe { real::$name($($argument),*) },
                    Some(mut call) => {
                        let $call = &mut call;
                        let result: Result<$result, c_int> = $body;
                        call.end(result)
                    }
                }
            }
        )*
    };
}

pub(crate) use {hooks, real};
