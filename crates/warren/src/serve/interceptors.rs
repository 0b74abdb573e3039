//! What is written into messages, among the settings.

use serde::Deserialize;
use warren_broker::{Existing, Interceptors};

/// What the settings say of it, in any source of them.
#[derive(clap::Args, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct InterceptorSettings {
    /// Write into each message when it came, as the header `timestamp_in_ms` and the property `timestamp`; what a client
    /// has written there stays or goes [default: nothing is written]
    #[arg(long, value_name = "keep|overwrite", env = "WARREN_SET_HEADER_TIMESTAMP", value_parser = wish)]
    set_header_timestamp: Option<Wish>,
    /// Write into each message which node took it, as the header `x-routed-by` [default: nothing is written]
    #[arg(long, value_name = "keep|overwrite", env = "WARREN_SET_HEADER_ROUTING_NODE", value_parser = wish)]
    set_header_routing_node: Option<Wish>,
}

/// `keep` or `overwrite`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
struct Wish(Existing);

fn wish(text: &str) -> Result<Wish, String> {
    text.parse().map(Wish)
}

impl TryFrom<String> for Wish {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        wish(&text)
    }
}

impl InterceptorSettings {
    /// What holds, with what `file` says where the command line and the environment say nothing.
    pub(crate) fn or(self, file: Self) -> Interceptors {
        let existing = |line: Option<Wish>, file: Option<Wish>| line.or(file).map(|wish| wish.0);
        Interceptors {
            timestamp: existing(self.set_header_timestamp, file.set_header_timestamp),
            routing_node: existing(self.set_header_routing_node, file.set_header_routing_node),
        }
    }
}

#[cfg(test)]
mod tests {
    use warren_broker::{Existing, Interceptors};

    use super::{InterceptorSettings, wish};

    #[test]
    fn the_command_line_comes_before_the_file() {
        let line = InterceptorSettings {
            set_header_timestamp: wish("keep").ok(),
            ..InterceptorSettings::default()
        };
        let text = "set-header-timestamp = 'overwrite'\nset-header-routing-node = 'overwrite'";
        let (timestamp, routing_node) = (Some(Existing::Keep), Some(Existing::Overwrite));
        let both = line.or(toml::from_str(text).unwrap());
        assert_eq!(both, Interceptors { timestamp, routing_node });
        let wrong: Result<InterceptorSettings, _> = toml::from_str("set-header-timestamp = 'x'");
        assert!(wrong.unwrap_err().to_string().contains("neither keep nor overwrite"));
    }
}
