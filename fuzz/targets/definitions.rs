//! Definitions in JSON: any bytes are read or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_broker::Definitions;

fuzz_target!(|data: &[u8]| {
    let _ = Definitions::check(data);
});
