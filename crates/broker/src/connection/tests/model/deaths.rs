//! What messages say of themselves, and what dead letters say of their deaths.

use std::collections::BTreeMap;

use warren_amqp::{BasicProperties, FieldTable, FieldValue};

use super::steps::headers;

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) body: String,
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) more_key: Option<&'static str>,
    pub(super) says: usize,
    pub(super) persistent: bool,
    pub(super) priority: Option<u8>,
    pub(super) expiration: Option<u64>,
    /// When it expires anywhere.
    pub(super) expires_ms: u64,
    /// The newest first.
    pub(super) deaths: Vec<Death>,
    /// Reason, queue, exchange.
    first: Option<[String; 3]>,
    last: Option<[String; 3]>,
}

#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) queue: &'static str,
    pub(super) reason: &'static str,
    count: i64,
    time: u64,
    exchange: String,
    keys: Vec<String>,
    expiration: Option<u64>,
}

impl Message {
    pub(super) fn new(
        body: String,
        (exchange, key, more_key): (&str, &str, Option<&'static str>),
        says: usize,
    ) -> Self {
        Self {
            body,
            exchange: exchange.into(),
            key: key.into(),
            more_key,
            says,
            persistent: false,
            priority: None,
            expiration: None,
            expires_ms: u64::MAX,
            deaths: Vec::new(),
            first: None,
            last: None,
        }
    }

    pub(super) fn keys(&self) -> Vec<&str> {
        std::iter::once(&*self.key).chain(self.more_key).collect()
    }

    /// The letter that it becomes.
    pub(super) fn died(
        &self,
        queue: &'static str,
        reason: &'static str,
        now_ms: u64,
        (exchange, key): (&str, Option<&str>),
    ) -> Self {
        let mut letter = self.clone();
        let same =
            letter.deaths.iter().position(|death| (death.queue, death.reason) == (queue, reason));
        let death = match same {
            Some(at) => {
                let mut death = letter.deaths.remove(at);
                death.count += 1;
                death
            }
            None => Death {
                queue,
                reason,
                count: 1,
                time: now_ms / 1000,
                exchange: self.exchange.clone(),
                keys: self.keys().into_iter().map(str::to_owned).collect(),
                expiration: self.expiration,
            },
        };
        letter.deaths.insert(0, death);
        let this = [reason.to_owned(), queue.to_owned(), self.exchange.clone()];
        letter.first.get_or_insert_with(|| this.clone());
        letter.last = Some(this);
        (letter.expiration, letter.expires_ms) = (None, u64::MAX);
        letter.exchange = exchange.into();
        if let Some(key) = key {
            letter.key = key.into();
            letter.more_key = None;
        }
        letter
    }

    /// It was here before, and nobody has rejected it since.
    pub(super) fn goes_round(&self, queue: &str) -> bool {
        let before = self.deaths.iter().position(|death| death.queue == queue);
        before.is_some_and(|at| self.deaths[..=at].iter().all(|death| death.reason != "rejected"))
    }

    /// As a publisher sends it.
    pub(super) fn properties(&self) -> BasicProperties {
        let mut properties =
            if self.persistent { BasicProperties::persistent() } else { BasicProperties::new() };
        let mut table = headers(self.says);
        if let Some(key) = self.more_key {
            table.push("CC", FieldValue::Array(vec![key.into()]));
        }
        if table != FieldTable::new() {
            properties.headers = Some(table);
        }
        properties.priority = self.priority;
        properties.expiration = self.expiration.map(|ms| ms.to_string());
        properties
    }

    /// Everything that a client can see of it, in a form in which the order of headers does not count.
    pub(super) fn shown(&self, delivery_count: Option<u32>) -> String {
        let mut properties = self.properties();
        let table = properties.headers.get_or_insert_default();
        for (which, of) in [("first", &self.first), ("last", &self.last)] {
            for (part, name) in ["reason", "queue", "exchange"].into_iter().enumerate() {
                if let Some(of) = of {
                    table.push(&format!("x-{which}-death-{name}"), &*of[part]);
                }
            }
        }
        if !self.deaths.is_empty() {
            let deaths = self.deaths.iter().map(|death| FieldValue::Table(death.table())).collect();
            table.push("x-death", FieldValue::Array(deaths));
        }
        if let Some(count) = delivery_count {
            table.push("x-delivery-count", FieldValue::I64(count.into()));
        }
        shown(&self.exchange, &self.key, properties, &self.body)
    }
}

impl Death {
    fn table(&self) -> FieldTable {
        let keys = self.keys.iter().map(|key| FieldValue::from(&**key)).collect();
        let mut table = FieldTable::new()
            .with("count", FieldValue::I64(self.count))
            .with("reason", self.reason)
            .with("queue", self.queue)
            .with("time", FieldValue::Timestamp(self.time))
            .with("exchange", &*self.exchange)
            .with("routing-keys", FieldValue::Array(keys));
        if let Some(expiration) = self.expiration {
            table.push("original-expiration", &*expiration.to_string());
        }
        table
    }
}

pub(super) fn shown(
    exchange: &str,
    key: &str,
    mut properties: BasicProperties,
    body: &str,
) -> String {
    let headers = properties.headers.take().unwrap_or_default();
    let headers: BTreeMap<&str, &FieldValue> = headers.iter().collect();
    format!("{body} by '{exchange}' with '{key}', {properties:?} and {headers:?}")
}
