//! Exchanges, queues and bindings come and go.

mod binding;
mod exchange;
mod queue;

pub(super) use exchange::is_predeclared;
pub(super) use queue::stored;

use std::rc::Rc;

use warren_amqp::FieldTable;

use crate::exception::Exception;
use crate::queue::settings;

const ALTERNATE: &str = "alternate-exchange";

/// Refuses to change the default exchange, or its bindings.
pub(crate) fn refuse_default(exchange: &str) -> Result<(), Exception> {
    match exchange {
        "" => Err(Exception::refused("operation not permitted on the default exchange")),
        _ => Ok(()),
    }
}

fn refuse_reserved(kind: &str, name: &str) -> Result<(), Exception> {
    if name.starts_with("amq.") {
        let text = format!("{kind} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Exception::refused(text));
    }
    Ok(())
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn check_equivalent_argument(
    argument: &str,
    what: &str,
    received: &FieldTable,
    current: &FieldTable,
) -> Result<(), Exception> {
    match settings::difference(received.get(argument), current.get(argument)) {
        Some(difference) => Err(Exception::inequivalent(argument, what, &difference)),
        None => Ok(()),
    }
}

/// The encoded pairs of a table, without the length in front.
fn table_bytes(table: &FieldTable) -> Rc<[u8]> {
    if table.is_empty() {
        return Rc::new([]);
    }
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes[4..].into()
}
