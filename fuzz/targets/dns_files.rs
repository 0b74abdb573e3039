//! `/etc/hosts` and `/etc/resolv.conf`: whatever they say, what comes out is within the bounds that are promised.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use warren_hub::net::dns::{Config, Hosts};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let config = Config::parse_resolv_conf(&text);
    assert!(!config.servers.is_empty());
    assert!(config.ndots <= 15 && (1..=5).contains(&config.attempts));
    assert!((1..=30).map(Duration::from_secs).any(|timeout| timeout == config.timeout));
    assert!(config.search.iter().all(|domain| !domain.is_empty() && !domain.ends_with('.')));

    let hosts = Hosts::parse(&text);
    for word in text.split_whitespace() {
        for &ip in hosts.addrs(word) {
            assert!(!hosts.names(ip).is_empty(), "{word} has the address {ip}, which has no name");
        }
        // The same whatever the case, for names have none.
        assert_eq!(hosts.addrs(word), hosts.addrs(&word.to_ascii_uppercase()));
    }
    // Read once more, there is nothing new.
    let twice = Hosts::parse(&format!("{text}\n{text}"));
    let names: Vec<&str> = text.split_whitespace().collect();
    assert!(names.iter().all(|name| hosts.addrs(name) == twice.addrs(name)));
});
