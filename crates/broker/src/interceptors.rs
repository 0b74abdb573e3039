//! What the server writes into messages as they come in, if it is told to: RabbitMQ's interceptors of incoming messages.

use std::str::FromStr;

use warren_amqp::{FieldValue, RawProperties};

use crate::message::Content;

/// What becomes of a value that the client has written itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Keep,
    /// It is written over.
    Overwrite,
}

impl FromStr for Existing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keep" => Ok(Self::Keep),
            "overwrite" => Ok(Self::Overwrite),
            _ => Err(format!("'{text}' is neither keep nor overwrite")),
        }
    }
}

/// What is written into each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interceptors {
    /// When it came: the header `timestamp_in_ms`, and the property `timestamp` in seconds.
    pub timestamp: Option<Existing>,
    /// Which node took it: the header `x-routed-by`.
    pub routing_node: Option<Existing>,
}

impl Interceptors {
    /// Whether anything is written.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.timestamp.is_some() || self.routing_node.is_some()
    }

    /// The content as it is to be; `None`: as it is.
    pub(crate) fn apply(&self, content: &Content, now_ms: u64, node: &str) -> Option<Content> {
        let mut properties = RawProperties::new(content.properties()).to_properties().ok()?;
        let headers = properties.headers.get_or_insert_default();
        let mut header = |existing: Option<Existing>, key: &str, value: FieldValue| match existing {
            Some(Existing::Keep) if headers.contains_key(key) => {}
            Some(_) => headers.insert(key, value),
            None => {}
        };
        header(self.timestamp, "timestamp_in_ms", FieldValue::I64(now_ms as i64));
        let node = FieldValue::LongString(node.as_bytes().to_vec());
        header(self.routing_node, "x-routed-by", node);
        match self.timestamp {
            Some(Existing::Keep) if properties.timestamp.is_some() => {}
            Some(_) => properties.timestamp = Some(now_ms / 1000),
            None => {}
        }
        Some(Content::with_properties(&properties, content.body()))
    }
}

#[cfg(test)]
mod tests {
    use warren_amqp::{BasicProperties, FieldTable, FieldValue, RawProperties};

    use super::{Existing, Interceptors};
    use crate::message::Content;

    /// Headers and timestamp of what a message with these becomes at 1,700,000,000,123.
    fn apply(
        interceptors: Interceptors,
        headers: Option<FieldTable>,
        timestamp: Option<u64>,
    ) -> (Option<FieldTable>, Option<u64>) {
        let properties =
            BasicProperties { headers, timestamp, priority: Some(3), ..Default::default() };
        let content = Content::with_properties(&properties, b"body");
        let content = interceptors.apply(&content, 1_700_000_000_123, "here").unwrap();
        assert_eq!(content.body(), b"body");
        let properties = RawProperties::new(content.properties()).to_properties().unwrap();
        assert_eq!(properties.priority, Some(3));
        (properties.headers, properties.timestamp)
    }

    #[test]
    fn what_is_written_and_what_is_kept() {
        let all = |existing| Interceptors { timestamp: existing, routing_node: existing };
        let written = || {
            FieldTable::new()
                .with("timestamp_in_ms", FieldValue::I64(1_700_000_000_123))
                .with("x-routed-by", "here")
        };
        let theirs = || {
            FieldTable::new().with("timestamp_in_ms", FieldValue::I64(7)).with("x-routed-by", "me")
        };
        for existing in [Existing::Keep, Existing::Overwrite] {
            let fresh = apply(all(Some(existing)), None, None);
            assert_eq!(fresh, (Some(written()), Some(1_700_000_000)));
        }
        let kept = apply(all(Some(Existing::Keep)), Some(theirs()), Some(5));
        assert_eq!(kept, (Some(theirs()), Some(5)));
        let over = apply(all(Some(Existing::Overwrite)), Some(theirs()), Some(5));
        assert_eq!(over, (Some(written()), Some(1_700_000_000)));
        let node = Interceptors { routing_node: Some(Existing::Overwrite), ..Default::default() };
        let only = FieldTable::new().with("x-routed-by", "here");
        assert_eq!(apply(node, None, None), (Some(only), None));
        assert!(node.any() && !Interceptors::default().any());
    }
}
