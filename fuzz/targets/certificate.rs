//! Certificates of clients: whatever they are, they have a name or none.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| warren_broker::fuzzing::certificate(data));
