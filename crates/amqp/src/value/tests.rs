//! Wire bytes of each type, limits, and garbage.

use proptest::prelude::*;

use super::*;

fn encoded(table: &FieldTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes
}

/// A table of one entry `k` has these bytes after the key, and they are read as the same value.
#[track_caller]
fn check(value: FieldValue, want: &[u8]) {
    let table = FieldTable::new().with("k", value);
    let bytes = encoded(&table);
    assert_eq!(&bytes[6..], want);
    assert_eq!(bytes[..4], (bytes.len() as u32 - 4).to_be_bytes());
    assert_eq!(FieldTable::decode(&bytes[4..]).as_ref(), Ok(&table));
}

#[test]
fn types_are_those_of_rabbitmq() {
    check(FieldValue::Bool(true), b"t\x01");
    check(FieldValue::I8(-1), b"b\xff");
    check(FieldValue::U8(255), b"B\xff");
    check(FieldValue::I16(-2), b"s\xff\xfe");
    check(FieldValue::U16(2), b"u\x00\x02");
    check(FieldValue::I32(-2), b"I\xff\xff\xff\xfe");
    check(FieldValue::U32(2), b"i\0\0\0\x02");
    check(FieldValue::I64(-2), b"l\xff\xff\xff\xff\xff\xff\xff\xfe");
    check(FieldValue::F32(1.0), b"f\x3f\x80\0\0");
    check(FieldValue::F64(1.0), b"d\x3f\xf0\0\0\0\0\0\0");
    check(FieldValue::Decimal { scale: 2, digits: 314 }, b"D\x02\0\0\x01\x3a");
    check(FieldValue::from("hi"), b"S\0\0\0\x02hi");
    check(FieldValue::Bytes(vec![0xff]), b"x\0\0\0\x01\xff");
    check(FieldValue::Timestamp(5), b"T\0\0\0\0\0\0\0\x05");
    check(FieldValue::Void, b"V");
    check(FieldValue::Array(vec![1u8.into(), FieldValue::Void]), b"A\0\0\0\x03B\x01V");
    check(FieldTable::new().with("a", true).into(), b"F\0\0\0\x04\x01at\x01");
}

#[test]
fn a_capital_l_is_a_signed_long() {
    let table = FieldTable::decode(b"\x01kL\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    assert_eq!(table.get("k"), Some(&FieldValue::I64(-1)));
}

#[test]
fn order_and_duplicates_are_kept() {
    let mut table = FieldTable::new().with("b", 1).with("a", 2).with("b", 3);
    let again = FieldTable::decode(&encoded(&table)[4..]).unwrap();
    assert_eq!(again, table);
    let keys: Vec<_> = again.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["b", "a", "b"]);
    assert_eq!(again.get("b"), Some(&FieldValue::I32(1)));
    table.insert("a", 9);
    assert_eq!(table.remove("b"), Some(FieldValue::I32(1)));
    assert_eq!(table, FieldTable::new().with("a", 9));
}

/// Tables one in another, `depth` of them, without the outermost length.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        let mut outer = b"\x01kF".to_vec();
        put_long_str(&mut outer, &bytes);
        bytes = outer;
    }
    bytes
}

#[test]
fn nesting_is_limited() {
    assert!(FieldTable::decode(&nested(NESTING_MAX)).is_ok());
    let error = FieldTable::decode(&nested(NESTING_MAX + 1)).unwrap_err();
    assert_eq!(error.fault, Fault::NestedTooDeep { max: NESTING_MAX });
    assert_eq!(RawTable::new(&nested(20_000)).validate(), Err(error));
}

#[test]
fn mistakes_are_named() {
    #[track_caller]
    fn check(bytes: &[u8], want: &str) {
        assert_eq!(FieldTable::decode(bytes).unwrap_err().to_string(), want);
        assert_eq!(RawTable::new(bytes).validate().unwrap_err().to_string(), want);
    }
    check(b"\x01k?", "field table: field type: unknown field type 0x3f");
    check(b"\x05k", "field table: key: 5 bytes are needed and 1 are left");
    check(b"\x01k", "field table: field type: 1 bytes are needed and 0 are left");
    check(
        b"\x01kS\xff\xff\xff\xffabc",
        "field table: long string: 4294967295 bytes are needed and 3 are left",
    );
    check(b"\x01\xffV", "field table: key: malformed UTF-8 in a short string");
}

proptest! {
    #[test]
    fn garbage_never_panics_and_both_readers_agree(
        bytes in proptest::collection::vec(
            prop_oneof![
                Just(0u8), Just(1), Just(2), Just(5),
                prop::sample::select(b"tbBsuIilLfdDSATFVx".to_vec()), any::<u8>(),
            ],
            0..100,
        ),
    ) {
        let owned = FieldTable::decode(&bytes);
        let raw = RawTable::new(&bytes);
        prop_assert_eq!(raw.validate(), owned.as_ref().map(|_| ()).map_err(Clone::clone));
        let _ = raw.get("");
        if let Ok(table) = owned {
            let again = encoded(&table);
            let reread = FieldTable::decode(&again[4..]).unwrap();
            prop_assert_eq!(encoded(&reread), again);
        }
    }
}
