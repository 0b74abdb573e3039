//! Content properties: what is read is written back, and each raw accessor agrees.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_amqp::{BasicProperties, properties};

fuzz_target!(|data: &[u8]| {
    let raw = properties::validate(data);
    let decoded = BasicProperties::decode(data);
    assert_eq!(raw.is_ok(), decoded.is_ok());
    let (Ok(raw), Ok(decoded)) = (raw, decoded) else { return };
    assert_eq!(raw.content_type(), decoded.content_type.as_deref());
    assert_eq!(raw.delivery_mode(), decoded.delivery_mode);
    assert_eq!(raw.expiration(), decoded.expiration.as_deref());
    assert_eq!(raw.timestamp(), decoded.timestamp);
    assert_eq!(raw.cluster_id(), decoded.cluster_id.as_deref());
    assert_eq!(raw.headers().is_some(), decoded.headers.is_some());
    let mut bytes = Vec::new();
    decoded.encode(&mut bytes);
    let mut twice = Vec::new();
    BasicProperties::decode(&bytes).expect("what was written can be read").encode(&mut twice);
    assert_eq!(bytes, twice);
});
