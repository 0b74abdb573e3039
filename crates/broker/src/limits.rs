//! What one client, and all of them together, may have.

/// Limits of a server. Those of virtual hosts and users are set while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that may be open.
    pub connection_max: Option<u64>,
    /// Channels of all connections together: RabbitMQ's `channel_max_per_node`.
    pub channel_max_per_node: Option<u64>,
    /// Queues of all virtual hosts together: RabbitMQ's `cluster_queue_limit`.
    pub queue_max: Option<u64>,
    /// Channels of a connection; a client can ask for fewer. At least 1.
    pub channel_max: u16,
    /// Bytes of a frame; a client can ask for fewer. At least 4096.
    pub frame_max: u32,
    /// Seconds between signs of life that are proposed; 0 for none. The client decides.
    pub heartbeat_s: u16,
    /// Consumers of a channel.
    pub consumer_max_per_channel: Option<usize>,
    /// Bytes of a message's body.
    pub message_bytes_max: u64,
    /// Seconds to log in and open a virtual host.
    pub handshake_s: u64,
    /// Users who may come from this machine only.
    pub loopback_users: Vec<String>,
}

impl Default for Limits {
    /// Those of RabbitMQ 3.10.
    fn default() -> Self {
        Self {
            connection_max: None,
            channel_max_per_node: None,
            queue_max: None,
            channel_max: warren_amqp::constants::DEFAULT_CHANNEL_MAX,
            frame_max: warren_amqp::constants::DEFAULT_FRAME_MAX,
            heartbeat_s: warren_amqp::constants::DEFAULT_HEARTBEAT_S,
            consumer_max_per_channel: None,
            message_bytes_max: 128 * 1024 * 1024,
            handshake_s: 10,
            loopback_users: vec!["guest".into()],
        }
    }
}
