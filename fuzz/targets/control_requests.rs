//! Requests of the control socket: what is read is written and read again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_broker::admin::Request;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = Request::parse(data) {
        let json = serde_json::to_vec(&request).unwrap();
        let again = Request::parse(&json).unwrap();
        assert_eq!(json, serde_json::to_vec(&again).unwrap());
    }
});
