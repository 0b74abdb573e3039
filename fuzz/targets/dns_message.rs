//! A DNS message: never a panic, never a loop, and no name longer than what a message can carry.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_hub::net::dns::message::{Data, Message};

/// The longest name is 255 octets, each written with four characters at most.
const NAME_CHARS_MAX: usize = 4 * 255;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::parse(data) else { return };
    for record in message.answers.iter().chain(&message.authorities) {
        assert!(record.name.len() <= NAME_CHARS_MAX);
        assert!(record.ttl >> 31 == 0);
        if let Data::Cname(name) | Data::Ptr(name) = &record.data {
            assert!(name.len() <= NAME_CHARS_MAX);
        }
    }
});
