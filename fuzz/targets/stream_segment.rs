//! A segment of a stream and its index: what is read is written back byte for byte, and nothing is met twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_broker::stream::index;
use warren_broker::stream::record::{Step, encode, walk};

fuzz_target!(|data: &[u8]| {
    let (mut at, mut next) = (0, 0);
    let mut steps = walk(data, 0);
    for step in &mut steps {
        let (from, to) = match step {
            Step::Damaged(from, to) => (from, to),
            Step::Record(record, from, size) => {
                assert!(next <= record.offset);
                next = record.offset.saturating_add(1);
                let _ = record.filter_value();
                let mut bytes = Vec::new();
                encode(&mut bytes, &record);
                assert_eq!(bytes, &data[from..from + size]);
                (from, from + size)
            }
        };
        assert_eq!(from, at);
        assert!(from < to && to <= data.len());
        at = to;
    }
    assert_eq!(steps.position(), at);
    for filter_bytes in [1, index::FILTER_BYTES, index::FILTER_BYTES_MAX] {
        for entry in data.chunks_exact(index::entry_bytes(filter_bytes)) {
            if let Some(block) = index::decode(entry, filter_bytes) {
                let _ = block.may_hold(&[entry.to_vec()], true);
                let mut bytes = Vec::new();
                index::encode(&mut bytes, &block);
                assert_eq!(bytes, entry);
            }
        }
    }
});
