//! What the tests of this crate share.

#![allow(dead_code, unreachable_pub)]

pub mod servers;

use std::time::Duration;

/// How many calls are to be in flight at once.
pub const AT_ONCE: usize = 100;

/// Ends the process after a while: with a hub that is blocked, a test would hang.
pub fn watchdog() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(120));
        eprintln!("blocked: the test has not ended after two minutes");
        std::process::abort();
    });
}
