//! Strings that describe endpoints: whatever they say, they mean an endpoint or an error, and the same when written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_reactor::endpoints::{
    Description, client_from_string, quote_string_argument, server_from_string,
};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(description) = text.parse::<Description>() else { return };
    let written = description.to_string();
    // Backslashes that were not needed are gone, those that are needed may make it too long.
    match written.parse::<Description>() {
        Ok(again) => assert_eq!(again, description),
        Err(_) => assert!(4096 < written.len()),
    }
    for value in description.positional() {
        let quoted = format!("a:{}", quote_string_argument(value));
        if quoted.len() <= 4096 {
            assert_eq!(quoted.parse::<Description>().unwrap().positional(), [value.clone()]);
        }
    }
    // These kinds look at nothing but the string.
    if matches!(description.kind(), "tcp" | "unix") {
        let _ = server_from_string(&text);
        let _ = client_from_string(&text);
    }
});
