//! The server's limits among the settings.

use serde::Deserialize;
use warren_broker::{Limits, parse_size};

/// What the settings say of limits, in any source of them.
#[derive(clap::Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LimitSettings {
    /// Connections that may be open [default: any number]
    #[arg(long, value_name = "COUNT", env = "WARREN_CONNECTION_MAX")]
    connection_max: Option<u64>,
    /// Channels of all connections together [default: any number]
    #[arg(long, value_name = "COUNT", env = "WARREN_CHANNEL_MAX_PER_NODE")]
    channel_max_per_node: Option<u64>,
    /// Queues of all virtual hosts together [default: any number]
    #[arg(long, value_name = "COUNT", env = "WARREN_CLUSTER_QUEUE_LIMIT")]
    cluster_queue_limit: Option<u64>,
    /// Channels of a connection [default: 2047]
    #[arg(long, value_name = "COUNT", env = "WARREN_CHANNEL_MAX", value_parser = clap::value_parser!(u16).range(1..))]
    channel_max: Option<u16>,
    /// Bytes of a frame [default: 131072]
    #[arg(long, value_name = "BYTES", env = "WARREN_FRAME_MAX", value_parser = clap::value_parser!(u32).range(4096..=0x7fff_ffff))]
    frame_max: Option<u32>,
    /// Seconds between signs of life, as proposed to clients; 0 for none [default: 60]
    #[arg(long, value_name = "SECONDS", env = "WARREN_HEARTBEAT")]
    heartbeat: Option<u16>,
    /// Consumers of a channel [default: any number]
    #[arg(long, value_name = "COUNT", env = "WARREN_CONSUMER_MAX_PER_CHANNEL")]
    consumer_max_per_channel: Option<usize>,
    /// The largest message: bytes, or 64MB and the like [default: 128MiB]
    #[arg(long, value_name = "SIZE", env = "WARREN_MAX_MESSAGE_SIZE", value_parser = size)]
    max_message_size: Option<Size>,
    /// Seconds a client may take to log in and open a virtual host [default: 10]
    #[arg(long, value_name = "SECONDS", env = "WARREN_HANDSHAKE_TIMEOUT", value_parser = clap::value_parser!(u64).range(1..))]
    handshake_timeout: Option<u64>,
    /// Users who may come from this machine only, separated by commas; `none` for nobody [default: guest]
    #[arg(long, value_name = "NAMES", env = "WARREN_LOOPBACK_USERS", value_delimiter = ',')]
    loopback_users: Vec<String>,
}

/// A number of bytes that may have a unit.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(crate) struct Size(u64);

fn size(text: &str) -> Result<Size, String> {
    parse_size(text).map(Size)
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        size(&text)
    }
}

impl LimitSettings {
    /// The limits that hold, with what `file` says where the command line and the environment say nothing.
    ///
    /// # Errors
    /// When the file says what cannot be.
    pub(crate) fn or(self, file: Self) -> Result<Limits, String> {
        let usual = Limits::default();
        let mut loopback_users =
            if self.loopback_users.is_empty() { file.loopback_users } else { self.loopback_users };
        match &loopback_users[..] {
            [] => loopback_users = usual.loopback_users,
            [none] if none == "none" => loopback_users = Vec::new(),
            _ => {}
        }
        let message_size = self.max_message_size.or(file.max_message_size);
        let limits = Limits {
            connection_max: self.connection_max.or(file.connection_max),
            channel_max_per_node: self.channel_max_per_node.or(file.channel_max_per_node),
            queue_max: self.cluster_queue_limit.or(file.cluster_queue_limit),
            channel_max: self.channel_max.or(file.channel_max).unwrap_or(usual.channel_max),
            frame_max: self.frame_max.or(file.frame_max).unwrap_or(usual.frame_max),
            heartbeat_s: self.heartbeat.or(file.heartbeat).unwrap_or(usual.heartbeat_s),
            consumer_max_per_channel: self
                .consumer_max_per_channel
                .or(file.consumer_max_per_channel),
            message_bytes_max: message_size.map_or(usual.message_bytes_max, |size| size.0),
            handshake_s: self
                .handshake_timeout
                .or(file.handshake_timeout)
                .unwrap_or(usual.handshake_s),
            loopback_users,
        };
        if limits.channel_max == 0 || limits.handshake_s == 0 {
            return Err("channel-max and handshake-timeout are at least 1".into());
        }
        if !(4096..=0x7fff_ffff).contains(&limits.frame_max) {
            return Err(format!("frame-max is at least 4096, not {}", limits.frame_max));
        }
        if MESSAGE_BYTES_MAX < limits.message_bytes_max {
            return Err(format!(
                "max-message-size is at most 512MiB, not {} bytes",
                limits.message_bytes_max
            ));
        }
        Ok(limits)
    }
}

/// As in RabbitMQ. The store takes no larger record.
const MESSAGE_BYTES_MAX: u64 = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::LimitSettings;

    fn file(text: &str) -> LimitSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_command_line_comes_first_then_the_file_then_what_is_usual() {
        let line = LimitSettings { channel_max: Some(5), ..LimitSettings::default() };
        let limits =
            line.or(file("channel-max = 6\nframe-max = 8192\nmax-message-size = '1MiB'")).unwrap();
        assert_eq!((limits.channel_max, limits.frame_max), (5, 8192));
        assert_eq!((limits.message_bytes_max, limits.heartbeat_s), (1 << 20, 60));
        assert_eq!(limits.loopback_users, ["guest"]);
        let nobody = file("loopback-users = ['none']");
        assert!(LimitSettings::default().or(nobody).unwrap().loopback_users.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_file_too() {
        for text in [
            "frame-max = 100",
            "channel-max = 0",
            "handshake-timeout = 0",
            "max-message-size = '513MiB'",
        ] {
            assert!(LimitSettings::default().or(file(text)).is_err(), "{text}");
        }
    }
}
