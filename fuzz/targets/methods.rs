//! A method's payload: what is read, written and read again is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_amqp::Method;

fuzz_target!(|data: &[u8]| {
    let Ok(method) = Method::decode(data) else { return };
    let mut bytes = Vec::new();
    method.encode(&mut bytes);
    let again = Method::decode(&bytes).expect("what was written can be read");
    let mut twice = Vec::new();
    again.encode(&mut twice);
    assert_eq!(bytes, twice);
    assert_eq!(method.name(), again.name());
});
