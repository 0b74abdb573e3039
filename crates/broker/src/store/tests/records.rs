//! Records as bytes.

use proptest::prelude::*;

use super::super::record::{self, Decoded, Record};
use super::super::{checkpoint, legacy};

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = record::decode(&bytes);
        let _ = record::decode_payload(&bytes);
        let _ = legacy::record::decode(&bytes);
        let _ = checkpoint::decode_any(&bytes);
    }

    #[test]
    fn records_come_back_as_they_were(
        ids in any::<(u64, u64, u32)>(),
        queues in prop::collection::vec(any::<u64>(), 0..5),
        texts in ("[a-z.]{0,255}", "\\PC{0,60}"),
        properties in prop::collection::vec(any::<u8>(), 0..50),
        body in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        let records = [
            Record::Publish {
                place: ids.2,
                expires_ms: ids.1,
                published_ms: ids.0 % 2,
                queues,
                exchange: &texts.0,
                routing_key: &texts.1,
                properties: &properties,
                body: &body,
            },
            Record::Ack { first: ids.0, count: ids.2 },
            Record::Delivered { queue: ids.1, place: ids.0 },
            Record::Counted { place: ids.1, count: ids.2, due_ms: ids.0 },
            Record::End { count: ids.2 },
        ];
        let mut bytes = Vec::new();
        for record in &records {
            record::encode(&mut bytes, record, false);
            record::encode(&mut bytes, record, true);
        }
        let at = bytes.len();
        bytes.extend_from_slice(&[7; 100]);
        record::fill(&mut bytes[at..]);
        let mut rest = &bytes[..];
        for record in &records {
            let Decoded::Record(read, size) = record::decode(rest) else { panic!("not a record") };
            prop_assert_eq!(&read, record);
            rest = &rest[size..];
            let Decoded::Grouped(read, size) = record::decode(rest) else { panic!("no group") };
            prop_assert_eq!(&read, record);
            rest = &rest[size..];
        }
        prop_assert_eq!(record::decode(rest), Decoded::Filler(100));
    }
}
