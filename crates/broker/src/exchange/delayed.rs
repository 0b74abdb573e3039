//! Delayed messages (`x-delayed-message`): an exchange of another type that lets messages wait first.
//!
//! A header `x-delay` says for how many milliseconds. What is delivered carries it with its sign turned, so that it
//! waits once only, and whoever receives it sees that it has waited. The names and the rules are those of
//! RabbitMQ's plugin; its limits are not: a delay may be longer than 49 days, what waits does not go
//! to an alternate exchange in the meantime, and is not given back as unroutable.

use warren_amqp::value::{RawTable, RawValue};
use warren_amqp::{FieldTable, FieldValue};

use super::Kind;
use super::schedule::Schedule;
use crate::exception::Exception;

const TYPE: &str = "x-delayed-type";
pub(crate) const DELAY: &str = "x-delay";

/// What an exchange delays.
#[derive(Default)]
pub(crate) struct Delays {
    /// The store's name for it: a queue's number, never used for another; 0: nothing is written down.
    pub(crate) id: u64,
    pub(crate) schedule: Schedule,
    /// When the engine looks at it next, in milliseconds since 1970; `None`: nothing waits.
    pub(crate) alarm_ms: Option<u64>,
}

/// The type that chooses among the bindings.
///
/// # Errors
/// When there is none, or no such type.
pub(super) fn inner_kind(arguments: &FieldTable) -> Result<Kind, Exception> {
    let kind = match arguments.get(TYPE).and_then(FieldValue::as_str) {
        Some(name) => Some(Kind::find(name)?),
        None => None,
    };
    kind.filter(|kind| *kind != Kind::DelayedMessage).ok_or_else(|| {
        let text = format!("Invalid argument, '{TYPE}' must be an existing exchange type");
        Exception::precondition(text)
    })
}

/// How long a message is to wait; `None`: not at all.
pub(crate) fn delay_ms(headers: RawTable<'_>) -> Option<u64> {
    let delay = match headers.get(DELAY)? {
        RawValue::LongString(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        RawValue::F32(delay) => f64::from(delay) as i64,
        RawValue::F64(delay) => delay as i64,
        other => other.to_value().ok()?.as_i64()?,
    };
    u64::try_from(delay).ok().filter(|delay| 0 < *delay)
}

/// The value of the header when the delay is over.
pub(crate) fn over(delay_ms: u64) -> FieldValue {
    let turned = 0i64.saturating_sub_unsigned(delay_ms);
    // As the plugin's, where it can be.
    i32::try_from(turned).map_or(FieldValue::I64(turned), FieldValue::I32)
}

#[cfg(test)]
mod tests {
    use warren_amqp::value::RawTable;
    use warren_amqp::{FieldTable, FieldValue};

    use super::{delay_ms, over};

    #[track_caller]
    fn check(value: impl Into<FieldValue>, want: Option<u64>) {
        let mut bytes = Vec::new();
        FieldTable::new().with("x-delay", value).encode(&mut bytes);
        assert_eq!(delay_ms(RawTable::new(&bytes[4..])), want);
    }

    #[test]
    fn a_delay_is_a_number_above_zero() {
        check(5000, Some(5000));
        check(1i64 << 40, Some(1 << 40));
        check(7u8, Some(7));
        check("5000", Some(5000));
        check(12.9f64, Some(12));
        for value in [FieldValue::I32(0), FieldValue::I32(-5), "soon".into(), FieldValue::Void] {
            check(value, None);
        }
        assert_eq!(delay_ms(RawTable::new(&[])), None);
        assert_eq!(over(5000), FieldValue::I32(-5000));
        assert_eq!(over(1 << 40), FieldValue::I64(-(1 << 40)));
    }
}
