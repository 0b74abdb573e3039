//! Field tables as JSON, in the manner of RabbitMQ's definitions.

use serde_json::{Map, Value};
use warren_amqp::value::RawTable;
use warren_amqp::{FieldTable, FieldValue};

/// Arguments deeper than this are none of ours.
const DEPTH_MAX: usize = 16;

/// # Errors
/// For what no field table can hold.
pub(crate) fn to_table(map: &Map<String, Value>) -> Result<FieldTable, String> {
    table(map, 0)
}

fn table(map: &Map<String, Value>, depth: usize) -> Result<FieldTable, String> {
    let mut table = FieldTable::new();
    for (key, value) in map {
        if 255 < key.len() {
            return Err(format!(
                "the argument '{}...' has too long a name",
                key.chars().take(32).collect::<String>()
            ));
        }
        table.insert(key, field(value, depth + 1)?);
    }
    Ok(table)
}

fn field(value: &Value, depth: usize) -> Result<FieldValue, String> {
    if DEPTH_MAX < depth {
        return Err(format!("arguments are nested more than {DEPTH_MAX} times"));
    }
    Ok(match value {
        Value::Null => FieldValue::Void,
        Value::Bool(value) => FieldValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => FieldValue::I64(value),
            (None, Some(value)) => FieldValue::F64(value),
            (None, None) => return Err(format!("{number} is no number of a field table")),
        },
        Value::String(text) => FieldValue::LongString(text.clone().into_bytes()),
        Value::Array(items) => {
            let items = items.iter().map(|item| field(item, depth + 1));
            FieldValue::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Object(map) => FieldValue::Table(table(map, depth)?),
    })
}

pub(crate) fn from_table(table: &FieldTable) -> Value {
    let entries = table.iter().map(|(key, value)| (key.to_owned(), from_field(value)));
    Value::Object(entries.collect())
}

/// Of an encoded table that has been checked.
pub(crate) fn from_raw(bytes: &[u8]) -> Value {
    from_table(&RawTable::new(bytes).to_table().unwrap_or_default())
}

fn from_field(value: &FieldValue) -> Value {
    match value {
        FieldValue::Bool(value) => (*value).into(),
        FieldValue::F32(value) => f64::from(*value).into(),
        FieldValue::F64(value) => (*value).into(),
        FieldValue::Decimal { scale, digits } => {
            (f64::from(*digits) / 10f64.powi((*scale).into())).into()
        }
        FieldValue::LongString(bytes) | FieldValue::Bytes(bytes) => {
            String::from_utf8_lossy(bytes).into()
        }
        FieldValue::Array(items) => Value::Array(items.iter().map(from_field).collect()),
        FieldValue::Timestamp(seconds) => (*seconds).into(),
        FieldValue::Table(table) => from_table(table),
        FieldValue::Void => Value::Null,
        number => number.as_i64().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{from_table, to_table};

    #[test]
    fn what_goes_in_comes_out() {
        let value = json!({"a": 1, "b": "text", "c": [true, null, -1.5], "d": {"e": {}}});
        let Value::Object(map) = &value else { unreachable!("an object") };
        assert_eq!(from_table(&to_table(map).unwrap()), value);
    }

    #[test]
    fn the_bottomless_is_refused() {
        let deep = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
        let Value::Object(map) = &deep else { unreachable!("an object") };
        assert!(to_table(map).unwrap_err().contains("nested more than"));
    }
}
