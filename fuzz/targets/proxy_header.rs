//! Headers of the PROXY protocol: cut anywhere, the same header or the same error comes out, and no more than may be is
//! ever waited for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_reactor::proxy_protocol::{Network, ProxyHeader};

fuzz_target!(|data: &[u8]| {
    let whole = ProxyHeader::parse(data);
    let mut grown = Ok(None);
    for end in 0..=data.len() {
        grown = ProxyHeader::parse(&data[..end]);
        if grown != Ok(None) {
            break;
        }
        assert!(end < ProxyHeader::BYTES_MAX);
    }
    assert_eq!(whole.is_ok(), grown.is_ok());
    if whole.is_ok() {
        assert_eq!(whole, grown);
    }
    if let Ok(Some((_, count))) = whole {
        assert!(count <= data.len() && count <= ProxyHeader::BYTES_MAX);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(network) = text.parse::<Network>()
    {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
});
