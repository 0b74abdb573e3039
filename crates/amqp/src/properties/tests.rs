//! Owned, validated and raw views agree on every subset of the properties.

use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-zé/]{0,60}")
}

prop_compose! {
    fn properties()(
        texts in proptest::collection::vec(text(), 10),
        headers in proptest::option::of(proptest::collection::vec(("[a-z]{1,9}", any::<i64>()), 0..4)),
        delivery_mode in any::<Option<u8>>(),
        priority in any::<Option<u8>>(),
        timestamp in any::<Option<u64>>(),
    ) -> BasicProperties {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().expect("ten texts");
        BasicProperties {
            content_type: text(),
            content_encoding: text(),
            headers: headers.map(|entries| entries.into_iter().collect()),
            delivery_mode,
            priority,
            correlation_id: text(),
            reply_to: text(),
            expiration: text(),
            message_id: text(),
            timestamp,
            kind: text(),
            user_id: text(),
            app_id: text(),
            cluster_id: text(),
        }
    }
}

fn encoded(properties: &BasicProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    properties.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn every_view_says_the_same(properties in properties()) {
        prop_assert_eq!(properties.check(), Ok(()));
        let bytes = encoded(&properties);
        prop_assert_eq!(&BasicProperties::decode(&bytes).unwrap(), &properties);
        let raw = validate(&bytes).unwrap();
        prop_assert_eq!(raw.content_type(), properties.content_type.as_deref());
        prop_assert_eq!(raw.content_encoding(), properties.content_encoding.as_deref());
        prop_assert_eq!(raw.headers().map(|h| h.to_table().unwrap()), properties.headers);
        prop_assert_eq!(raw.delivery_mode(), properties.delivery_mode);
        prop_assert_eq!(raw.priority(), properties.priority);
        prop_assert_eq!(raw.correlation_id(), properties.correlation_id.as_deref());
        prop_assert_eq!(raw.reply_to(), properties.reply_to.as_deref());
        prop_assert_eq!(raw.expiration(), properties.expiration.as_deref());
        prop_assert_eq!(raw.message_id(), properties.message_id.as_deref());
        prop_assert_eq!(raw.timestamp(), properties.timestamp);
        prop_assert_eq!(raw.kind(), properties.kind.as_deref());
        prop_assert_eq!(raw.user_id(), properties.user_id.as_deref());
        prop_assert_eq!(raw.app_id(), properties.app_id.as_deref());
        prop_assert_eq!(raw.cluster_id(), properties.cluster_id.as_deref());
    }

    #[test]
    fn a_header_is_set_and_nothing_else_changes(properties in properties(), number: i64) {
        let before = encoded(&properties);
        let mut bytes = vec![9];
        RawProperties::new(&before)
            .encode_with_header("k", &FieldValue::I64(number), &mut bytes)
            .unwrap();
        let mut expected = properties.clone();
        let headers = expected.headers.get_or_insert_default();
        headers.remove("k");
        let mut others = std::mem::take(headers);
        *headers = FieldTable::new().with("k", number);
        for (key, value) in std::mem::take(&mut others).iter() {
            headers.push(key, value.clone());
        }
        prop_assert_eq!(bytes[0], 9);
        prop_assert!(validate(&bytes[1..]).is_ok());
        prop_assert_eq!(BasicProperties::decode(&bytes[1..]).unwrap(), expected.clone());
        let mut again = Vec::new();
        RawProperties::new(&bytes[1..])
            .encode_with_header("k", &FieldValue::I64(number), &mut again)
            .unwrap();
        prop_assert_eq!(&again, &bytes[1..]);
    }

    #[test]
    fn cut_or_lengthened_properties_are_refused(properties in properties()) {
        let mut bytes = encoded(&properties);
        for cut in 0..bytes.len() {
            prop_assert!(validate(&bytes[..cut]).is_err());
            prop_assert!(BasicProperties::decode(&bytes[..cut]).is_err());
        }
        bytes.push(0);
        prop_assert!(validate(&bytes).is_err());
        prop_assert!(BasicProperties::decode(&bytes).is_err());
    }

    #[test]
    fn garbage_never_panics_and_both_readers_agree(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let raw = RawProperties::new(&bytes);
        let _ = (raw.cluster_id(), raw.headers(), raw.timestamp(), raw.priority());
        prop_assert_eq!(validate(&bytes).is_ok(), BasicProperties::decode(&bytes).is_ok());
    }
}

#[test]
fn bytes_are_those_of_the_specification() {
    assert_eq!(encoded(&BasicProperties::new()), NO_PROPERTIES);
    assert_eq!(encoded(&BasicProperties::persistent()), [0x10, 0, 2]);
    let rpc = BasicProperties::new().with_correlation_id("7").with_reply_to("q");
    assert_eq!(encoded(&rpc), [0x06, 0, 1, b'7', 1, b'q']);
}

#[test]
fn errors_name_the_property() {
    let error = validate(&[0x10, 0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "basic properties: delivery_mode: 1 bytes are needed and 0 are left"
    );
    let error = validate(&[0, 1]).unwrap_err();
    assert_eq!(error.fault, Fault::UnknownPropertyFlags(1));
    let long = BasicProperties::new().with_reply_to("x".repeat(256));
    assert!(long.check().is_err());
}
