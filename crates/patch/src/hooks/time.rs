//! Sleeping. The hub's timers are rounded up to a millisecond, so these sleeps are, too.

use std::ffi::c_int;
use std::time::Duration;

use libc::{c_uint, clockid_t, timespec, timeval, useconds_t};

use crate::call::Call;
use crate::real::hooks;

hooks! {
    Sleep(None)
    fn nanosleep(wanted: *const timespec, left: *mut timespec) -> c_int, |call| {
        // SAFETY: what the caller passed.
        match unsafe { duration_of_timespec(wanted) } {
            Ok(Some(duration)) => sleep_for(call, duration).map(|()| 0),
            // SAFETY: what the caller passed: the kernel says what is wrong with it.
            _ => crate::call::outcome(unsafe { real::nanosleep(wanted, left) } as isize)
                .map(|done| done as c_int),
        }
    }

    /// Returns its error number.
    Sleep(None)
    fn clock_nanosleep(
        clock: clockid_t, flags: c_int, wanted: *const timespec, left: *mut timespec,
    ) -> c_int, |call| {
        // SAFETY: what the caller passed.
        match unsafe { duration_on_clock(clock, flags, wanted) } {
            Some(duration) => Ok(sleep_for(call, duration).err().unwrap_or(0)),
            // SAFETY: what the caller passed: the kernel says what is wrong with it.
            None => Ok(unsafe { real::clock_nanosleep(clock, flags, wanted, left) }),
        }
    }

    Sleep(None)
    fn usleep(micros: useconds_t) -> c_int, |call| {
        sleep_for(call, Duration::from_micros(micros.into())).map(|()| 0)
    }

    /// Returns the seconds that are left, which are none.
    Sleep(None)
    fn sleep(seconds: c_uint) -> c_uint, |call| {
        sleep_for(call, Duration::from_secs(seconds.into())).map(|()| 0)
    }
}

/// Sleeps. For a fiber that is to end, sleep is over at once; its caller could do nothing with an error but sleep
/// again.
fn sleep_for(call: &mut Call, duration: Duration) -> Result<(), c_int> {
    let _ = call.sleep(duration);
    Ok(())
}

/// Sleeps by blocking the thread.
pub(crate) fn block(duration: Duration) -> Result<(), c_int> {
    let wanted = timespec {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_nsec: duration.subsec_nanos().into(),
    };
    // SAFETY: a time, and no place for what is left.
    let result = unsafe { real::nanosleep(&wanted, std::ptr::null_mut()) };
    crate::call::outcome(result as isize).map(drop)
}

/// How long from now a sleep on `clock` lasts. `None` when it is wrong, or on a clock that is not the time.
///
/// # Safety
/// `wanted` is null or a time.
unsafe fn duration_on_clock(
    clock: clockid_t,
    flags: c_int,
    wanted: *const timespec,
) -> Option<Duration> {
    if !matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME) {
        return None;
    }
    // SAFETY: our caller vouches for it.
    let wanted = unsafe { duration_of_timespec(wanted) }.ok()??;
    if flags & libc::TIMER_ABSTIME == 0 {
        return Some(wanted);
    }
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that there is, and a place.
    unsafe { libc::clock_gettime(clock, &mut now) };
    // SAFETY: a time.
    let now = unsafe { duration_of_timespec(&now) }.ok()??;
    Some(wanted.saturating_sub(now))
}

/// A time that C passed; `None` for a null pointer.
///
/// # Errors
/// `EINVAL` for one that is no time.
///
/// # Safety
/// `time` is null or a time.
pub(super) unsafe fn duration_of_timespec(
    time: *const timespec,
) -> Result<Option<Duration>, c_int> {
    if time.is_null() {
        return Ok(None);
    }
    // SAFETY: our caller vouches for it.
    let time = unsafe { *time };
    match (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanos)))
        }
        _ => Err(libc::EINVAL),
    }
}

/// As [`duration_of_timespec`]. More than a second's microseconds are allowed, as by the kernel.
///
/// # Safety
/// `time` is null or a time.
pub(super) unsafe fn duration_of_timeval(time: *const timeval) -> Result<Option<Duration>, c_int> {
    if time.is_null() {
        return Ok(None);
    }
    // SAFETY: our caller vouches for it.
    let time = unsafe { *time };
    match (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec)) {
        (Ok(seconds), Ok(micros)) => {
            Ok(Some(Duration::from_secs(seconds) + Duration::from_micros(micros)))
        }
        _ => Err(libc::EINVAL),
    }
}
