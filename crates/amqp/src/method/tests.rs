//! Every row of the table goes through the same checks: round trip, cut at each byte, too long.

use proptest::prelude::*;

use super::*;
use crate::value::FieldValue;

/// Makes up field values from a seed (SplitMix64), so that a failing case is one number.
pub(super) struct Sampler(pub(super) u64);

impl Sampler {
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        (self.number() % bound) as usize
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'Z', '.', '*', '#', 'é', '→', '0'];
        let mut text: String = (0..self.below(90)).map(|_| letters[self.below(8)]).collect();
        if self.below(10) == 0 {
            text = "x".repeat(255);
        }
        text
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(40)).map(|_| self.number() as u8).collect()
    }

    pub(super) fn value(&mut self, depth: usize) -> FieldValue {
        match self.below(if depth < 4 { 17 } else { 15 }) {
            0 => FieldValue::Bool(self.number() & 1 == 1),
            1 => FieldValue::I8(self.number() as i8),
            2 => FieldValue::U8(self.number() as u8),
            3 => FieldValue::I16(self.number() as i16),
            4 => FieldValue::U16(self.number() as u16),
            5 => FieldValue::I32(self.number() as i32),
            6 => FieldValue::U32(self.number() as u32),
            7 => FieldValue::I64(self.number() as i64),
            8 => FieldValue::F32(self.number() as i32 as f32 / 7.0),
            9 => FieldValue::F64(self.number() as i64 as f64 / 7.0),
            10 => FieldValue::Decimal { scale: self.number() as u8, digits: self.number() as u32 },
            11 => FieldValue::LongString(self.bytes()),
            12 => FieldValue::Timestamp(self.number()),
            13 => FieldValue::Void,
            14 => FieldValue::Bytes(self.bytes()),
            15 => FieldValue::Array((0..self.below(4)).map(|_| self.value(depth + 1)).collect()),
            _ => FieldValue::Table(self.table(depth + 1)),
        }
    }

    pub(super) fn table(&mut self, depth: usize) -> FieldTable {
        (0..self.below(5)).map(|_| (self.text(), self.value(depth))).collect()
    }
}

pub(super) trait Sample {
    fn sample(sampler: &mut Sampler) -> Self;
}

macro_rules! sample {
    ($($ty:ty => |$sampler:ident| $make:expr;)*) => { $(
        impl Sample for $ty {
            fn sample($sampler: &mut Sampler) -> Self { $make }
        }
    )* };
}
sample! {
    u8 => |s| s.number() as u8;
    u16 => |s| s.number() as u16;
    u32 => |s| s.number() as u32;
    u64 => |s| s.number();
    bool => |s| s.number() & 1 == 1;
    &'static str => |s| Box::leak(s.text().into_boxed_str());
    &'static [u8] => |s| Box::leak(s.bytes().into_boxed_slice());
    FieldTable => |s| s.table(0);
}

fn encoded(method: &impl EncodeMethod) -> Vec<u8> {
    let mut bytes = Vec::new();
    method.encode(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_method_comes_back_as_it_went(seed: u64) {
        for method in samples(&mut Sampler(seed)) {
            prop_assert_eq!(method.check(), Ok(()));
            let bytes = encoded(&method);
            prop_assert_eq!(Method::decode(&bytes), Ok(method));
        }
    }

    #[test]
    fn a_method_cut_short_or_too_long_is_refused(seed: u64) {
        for method in samples(&mut Sampler(seed)) {
            let mut bytes = encoded(&method);
            for cut in 0..bytes.len() {
                let error = Method::decode(&bytes[..cut]).unwrap_err();
                prop_assert!(matches!(error.fault, Fault::Truncated { .. }), "{}", error);
            }
            bytes.push(0);
            let error = Method::decode(&bytes).unwrap_err();
            prop_assert_eq!(error.fault, Fault::TrailingBytes(1));
        }
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_panics(
        index in 0..METHODS.len(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let info = METHODS[index];
        let mut bytes = info.class_id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&info.method_id.to_be_bytes());
        bytes.extend_from_slice(&tail);
        if let Ok(method) = Method::decode(&bytes) {
            // Compared as bytes: a NaN is unequal to itself.
            let again = encoded(&method);
            prop_assert_eq!(encoded(&Method::decode(&again).unwrap()), again);
        }
    }
}

#[test]
fn bytes_are_those_of_the_specification() {
    #[track_caller]
    fn check(method: impl EncodeMethod, want: &[u8]) {
        assert_eq!(encoded(&method), want, "{}", method.info().name);
    }
    check(basic::Ack { delivery_tag: 7, multiple: true }, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x07\x01");
    check(
        basic::Publish { exchange: "", routing_key: "hello", mandatory: true, immediate: false },
        b"\0\x3c\0\x28\0\0\0\x05hello\x01",
    );
    check(
        queue::Declare { queue: "q", durable: true, auto_delete: true, ..Default::default() },
        b"\0\x32\0\x0a\0\0\x01q\x0a\0\0\0\0",
    );
    check(connection::Open { virtual_host: "/" }, b"\0\x0a\0\x28\x01/\0\0");
    check(channel::OpenOk {}, b"\0\x14\0\x0b\0\0\0\0");
    check(exchange::UnbindOk {}, b"\0\x28\0\x33");
}

#[test]
fn errors_name_method_and_field() {
    let error = Method::decode(b"\0\x3c\0\x28\0\0\0\x05hell").unwrap_err();
    assert_eq!(error.to_string(), "basic.publish: routing_key: 5 bytes are needed and 4 are left");
    let error = Method::decode(b"\0\x3c\0\x28\0\0\0\x02\xff\xfe\0").unwrap_err();
    assert_eq!(error.fault, Fault::NotUtf8);
    assert_eq!(error.reply_code().0, 501);
    let error = Method::decode(&[0, 60, 0, 99]).unwrap_err();
    assert_eq!(error.to_string(), "method: ids: there is no method 99 in class 60");
}

#[test]
fn names_and_content_follow_the_table() {
    assert_eq!(method_name(50, 10), Some("queue.declare"));
    assert_eq!(method_name(60, 100), Some("basic.recover-async"));
    assert_eq!(method_name(50, 11111), None);
    let with_content: Vec<_> = samples(&mut Sampler(1))
        .iter()
        .filter(|method| method.has_content())
        .map(Method::name)
        .collect();
    assert_eq!(with_content, ["basic.publish", "basic.return", "basic.deliver", "basic.get-ok"]);
    let mut ids: Vec<_> = METHODS.iter().map(|info| (info.class_id, info.method_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), METHODS.len());
}

#[test]
fn what_does_not_fit_is_reported_by_check_and_cut_by_encode() {
    let long = "é".repeat(200);
    let method = queue::Purge { queue: &long, no_wait: false };
    assert_eq!(
        method.check().unwrap_err().to_string(),
        "queue.purge: queue has 400 bytes; a short string holds at most 255"
    );
    let bytes = encoded(&method);
    let Ok(Method::QueuePurge(cut)) = Method::decode(&bytes) else { panic!("not a purge") };
    assert_eq!(cut.queue, "é".repeat(127));
}
