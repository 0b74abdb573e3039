//! The message log: what is read is written back byte for byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_broker::store::legacy;
use warren_broker::store::record::{Decoded, decode, encode};

fuzz_target!(|data: &[u8]| {
    // What older servers wrote is read, too.
    let _ = legacy::record::decode(data);
    let mut rest = data;
    loop {
        match decode(rest) {
            Decoded::Record(record, size) => {
                let mut bytes = Vec::new();
                encode(&mut bytes, &record, false);
                assert_eq!(bytes, &rest[..size]);
                rest = &rest[size..];
            }
            Decoded::Grouped(record, size) => {
                let mut bytes = Vec::new();
                encode(&mut bytes, &record, true);
                assert_eq!(bytes, &rest[..size]);
                rest = &rest[size..];
            }
            Decoded::Filler(size) | Decoded::Damaged(size) => rest = &rest[size..],
            Decoded::Unfinished => return,
        }
    }
});
