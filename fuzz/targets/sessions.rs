//! Two clients of a broker: bytes decide what they say, when time passes and what runs short.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_broker::fuzzing::sessions;

fuzz_target!(|data: &[u8]| sessions(data));
