//! A field table: what is read is written back as it was read, and the raw view agrees.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_amqp::FieldTable;
use warren_amqp::value::RawTable;

fuzz_target!(|data: &[u8]| {
    let table = FieldTable::decode(data);
    let raw = RawTable::new(data);
    assert_eq!(raw.validate().is_ok(), table.is_ok());
    let Ok(table) = table else { return };
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    // The length comes first. Written again, it is the same once more: not-a-number is not equal to itself.
    let again = FieldTable::decode(&bytes[4..]).expect("what was written can be read");
    let mut twice = Vec::new();
    again.encode(&mut twice);
    assert_eq!(bytes, twice);
    assert_eq!(again.len(), table.len());
    for (name, _) in table.iter() {
        assert!(raw.get(name).is_some());
    }
});
