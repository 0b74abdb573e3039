//! Names of hosts. The C library asks servers for them by calls of its own, which nobody can stand in for; so the
//! whole question goes to another thread.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::net::IpAddr;

use libc::{addrinfo, sockaddr, sockaddr_storage, socklen_t};

use crate::call::{Call, errno};
use crate::real::hooks;

hooks! {
    /// Returns its own kind of error.
    Dns(None)
    fn getaddrinfo(
        host: *const c_char, service: *const c_char, hints: *const addrinfo,
        result: *mut *mut addrinfo,
    ) -> c_int, |call| {
        // SAFETY: what the caller passed.
        Ok(unsafe { look_up_host(call, host, service, hints, result) })
    }

    /// Returns its own kind of error.
    Dns(None)
    fn getnameinfo(
        address: *const sockaddr, address_size: socklen_t, host: *mut c_char, host_size: socklen_t,
        service: *mut c_char, service_size: socklen_t, flags: c_int,
    ) -> c_int, |call| {
        let question = (address, address_size, flags);
        // SAFETY: what the caller passed.
        Ok(unsafe { look_up_address(call, question, (host, host_size), (service, service_size)) })
    }
}

/// What the C library allocated for an answer. Freed if nobody is left to take it.
struct Answer(*mut addrinfo);

// SAFETY: plain memory, which any thread may read and free.
unsafe impl Send for Answer {}

impl Answer {
    fn take(mut self) -> *mut addrinfo {
        std::mem::replace(&mut self.0, std::ptr::null_mut())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: from getaddrinfo, and not given away.
            unsafe { libc::freeaddrinfo(self.0) }
        }
    }
}

/// # Safety
/// The pointers are what C's `getaddrinfo` may be called with.
unsafe fn look_up_host(
    call: &mut Call,
    host: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: our caller vouches for it: null, or strings and a structure.
    let (host_copy, service_copy, hints_copy) =
        unsafe { (owned(host), owned(service), hints.as_ref().map(plain)) };
    let numeric = hints_copy.is_some_and(|hints| hints.ai_flags & libc::AI_NUMERICHOST != 0);
    if numeric || host_copy.as_deref().is_none_or(is_address) {
        // Nobody needs to be asked.
        // SAFETY: what the caller passed.
        let code = unsafe { real::getaddrinfo(host, service, hints, result) };
        return failed(call, code, errno());
    }
    let job = move || {
        let mut answer = std::ptr::null_mut();
        let pointer =
            |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        let hints = hints_copy.map(|hints| hints.into_hints());
        let hints = hints.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: our own copies of what the caller passed, and a place.
        let code = unsafe {
            real::getaddrinfo(pointer(&host_copy), pointer(&service_copy), hints, &mut answer)
        };
        (code, errno(), Answer(answer))
    };
    match call.offload(job) {
        Ok((0, _, answer)) => {
            // SAFETY: the caller's place.
            unsafe { *result = answer.take() };
            0
        }
        Ok((code, errno, _)) => failed(call, code, errno),
        Err(errno) => failed(call, libc::EAI_SYSTEM, errno),
    }
}

/// The fields of `addrinfo` that are a question.
#[derive(Clone, Copy)]
struct Hints {
    ai_flags: c_int,
    ai_family: c_int,
    ai_socktype: c_int,
    ai_protocol: c_int,
}

fn plain(hints: &addrinfo) -> Hints {
    Hints {
        ai_flags: hints.ai_flags,
        ai_family: hints.ai_family,
        ai_socktype: hints.ai_socktype,
        ai_protocol: hints.ai_protocol,
    }
}

impl Hints {
    fn into_hints(self) -> addrinfo {
        // SAFETY: all zero is a structure without pointers.
        let mut hints: addrinfo = unsafe { MaybeUninit::zeroed().assume_init() };
        hints.ai_flags = self.ai_flags;
        hints.ai_family = self.ai_family;
        hints.ai_socktype = self.ai_socktype;
        hints.ai_protocol = self.ai_protocol;
        hints
    }
}

/// # Safety
/// The pointers are what C's `getnameinfo` may be called with.
unsafe fn look_up_address(
    call: &mut Call,
    (address, address_size, flags): (*const sockaddr, socklen_t, c_int),
    (host, host_size): (*mut c_char, socklen_t),
    (service, service_size): (*mut c_char, socklen_t),
) -> c_int {
    let size = address_size as usize;
    if flags & libc::NI_NUMERICHOST != 0 || size_of::<sockaddr_storage>() < size {
        // Nobody needs to be asked, or it is wrong.
        // SAFETY: what the caller passed.
        let code = unsafe {
            real::getnameinfo(address, address_size, host, host_size, service, service_size, flags)
        };
        return failed(call, code, errno());
    }
    let mut copy = [0_u8; size_of::<sockaddr_storage>()];
    // SAFETY: our caller vouches for the address; the size was checked.
    unsafe { address.cast::<u8>().copy_to(copy.as_mut_ptr(), size) };
    let (host_room, service_room) = (room(host, host_size), room(service, service_size));
    let job = move || {
        let (mut host, mut service) = (vec![0_u8; host_room], vec![0_u8; service_room]);
        let storage: Box<MaybeUninit<sockaddr_storage>> = Box::new(MaybeUninit::zeroed());
        let place = Box::into_raw(storage);
        // SAFETY: our own copies, aligned as an address is; freed after the call.
        let code = unsafe {
            copy.as_ptr().copy_to(place.cast(), copy.len());
            let code = real::getnameinfo(
                place.cast(),
                address_size,
                text(&mut host),
                host_room as socklen_t,
                text(&mut service),
                service_room as socklen_t,
                flags,
            );
            drop(Box::from_raw(place));
            code
        };
        (code, errno(), host, service)
    };
    match call.offload(job) {
        Ok((0, _, host_text, service_text)) => {
            // SAFETY: each as long as the caller's own room.
            unsafe {
                host_text.as_ptr().copy_to(host.cast(), host_text.len());
                service_text.as_ptr().copy_to(service.cast(), service_text.len());
            }
            0
        }
        Ok((code, errno, ..)) => failed(call, code, errno),
        Err(errno) => failed(call, libc::EAI_SYSTEM, errno),
    }
}

/// One of the codes leaves the error to `errno`.
fn failed(call: &mut Call, code: c_int, errno: c_int) -> c_int {
    if code == libc::EAI_SYSTEM {
        call.leave_errno(errno);
    }
    code
}

fn room(place: *mut c_char, size: socklen_t) -> usize {
    // As much as the longest name there is; more is not needed.
    if place.is_null() { 0 } else { (size as usize).min(libc::NI_MAXHOST as usize) }
}

/// Where to write; null without room.
fn text(room: &mut [u8]) -> *mut c_char {
    if room.is_empty() { std::ptr::null_mut() } else { room.as_mut_ptr().cast::<c_void>().cast() }
}

/// # Safety
/// `text` is null or a string.
unsafe fn owned(text: *const c_char) -> Option<CString> {
    // SAFETY: our caller vouches for it.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
}

/// Whether the name of the host is an address.
fn is_address(host: &CStr) -> bool {
    host.to_str().is_ok_and(|host| host.parse::<IpAddr>().is_ok())
}
