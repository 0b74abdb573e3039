//! Connections and channels come and go, logins succeed or fail, alarms are raised.

use std::net::{IpAddr, SocketAddr};

use warren_amqp::value::RawTable;
use warren_amqp::{FieldTable, FieldValue};
use warren_reactor::PeerAddr;

use super::super::{Engine, NODE};
use super::tls::Tls;
use super::{number, pairs};
use crate::admin::{channel_pid, connection_pid};
use crate::alarms::Resource;
use crate::channel::ChannelKey;
use crate::connection::{Connection, ConnectionKey};

/// What RabbitMQ calls AMQP 0-9-1.
const PROTOCOL: &str = "{0,9,1}";

impl Engine {
    /// A user has logged in.
    pub(crate) fn tell_login(&mut self, key: ConnectionKey) {
        if self.is_watched()
            && let Some(connection) = self.connections.get(key)
        {
            let user = connection.user.as_str();
            let headers = login(FieldTable::new(), connection, Some(user), connection.mechanism);
            self.tell("user.authentication.success", headers);
        }
    }

    /// A login was refused, and why. Nobody is logged in yet: the user is what the client says.
    pub(crate) fn tell_refused(
        &mut self,
        key: ConnectionKey,
        mechanism: &str,
        user: Option<&str>,
        why: &str,
    ) {
        if self.is_watched()
            && let Some(connection) = self.connections.get(key)
        {
            // To Erlang a text is a list of octets.
            let why = why.bytes().map(|octet| number(u32::from(octet))).collect();
            let headers = FieldTable::new().with("error", FieldValue::Array(why));
            let headers = login(headers, connection, user, mechanism);
            self.tell("user.authentication.failure", headers);
        }
    }

    /// A connection has opened its virtual host.
    pub(crate) fn tell_connection_created(&mut self, key: ConnectionKey) {
        if !self.is_watched() {
            return;
        }
        let Some(connection) = self.connections.get(key) else { return };
        let user = connection.user.as_str();
        let (host, port) = address(connection.transport.host());
        let (peer_host, peer_port) = address(connection.transport.peer());
        let client_properties = RawTable::new(&connection.client_properties).to_table();
        let headers = FieldTable::new()
            .with("user_who_performed_action", user)
            .with("node", NODE)
            .with("connected_at", FieldValue::I64(connection.connected_ms as i64))
            .with("client_properties", pairs(&client_properties.unwrap_or_default()))
            .with("channel_max", number(connection.channel_max))
            .with("frame_max", number(connection.frame_max))
            .with("timeout", FieldValue::I64(connection.heartbeat as i64))
            .with("vhost", &*connection.vhost.name)
            .with("user", user)
            .with("protocol", PROTOCOL);
        let headers = Tls::of(&connection.transport)
            .headers(headers, connection.mechanism)
            .with("peer_host", peer_host.as_str())
            .with("host", host.as_str())
            .with("peer_port", peer_port)
            .with("port", port)
            .with("name", connection.name().as_str())
            .with("pid", connection_pid(key).as_str())
            .with("type", "network");
        let headers = client_name(headers, connection);
        self.tell("connection.created", headers);
    }

    /// A connection has ended, however far it had come.
    pub(in crate::engine) fn tell_connection_closed(&mut self, key: ConnectionKey) {
        if !self.is_watched() {
            return;
        }
        let Some(connection) = self.connections.get(key) else { return };
        let client_properties = RawTable::new(&connection.client_properties).to_table();
        let headers = FieldTable::new()
            .with("client_properties", pairs(&client_properties.unwrap_or_default()))
            .with("node", NODE)
            .with("pid", connection_pid(key).as_str())
            .with("name", connection.name().as_str());
        let headers = client_name(headers, connection);
        self.tell("connection.closed", headers);
    }

    pub(in crate::engine) fn tell_channel_created(&mut self, key: ChannelKey) {
        if !self.is_watched() {
            return;
        }
        let Some(channel) = self.channels.get(key) else { return };
        let Some(connection) = self.connections.get(channel.connection) else { return };
        let user = connection.user.as_str();
        let headers = FieldTable::new()
            .with("user_who_performed_action", user)
            .with("vhost", &*connection.vhost.name)
            .with("user", user)
            .with("number", number(channel.number))
            .with("connection", connection_pid(channel.connection).as_str())
            .with("name", format!("{} ({})", connection.name(), channel.number).as_str())
            .with("pid", channel_pid(channel).as_str());
        self.tell("channel.created", headers);
    }

    /// A channel is about to go.
    pub(in crate::engine) fn tell_channel_closed(&mut self, key: ChannelKey) {
        if !self.is_watched() {
            return;
        }
        let Some(channel) = self.channels.get(key) else { return };
        let connection = self.connections.get(channel.connection);
        let headers = FieldTable::new()
            .with("user_who_performed_action", connection.map_or("", |client| &client.user))
            .with("pid", channel_pid(channel).as_str());
        self.tell("channel.closed", headers);
    }

    pub(crate) fn tell_alarm(&mut self, resource: Resource, on: bool) {
        if self.is_watched() {
            let event = if on { "alarm.set" } else { "alarm.cleared" };
            let headers = FieldTable::new().with("node", NODE).with("source", resource.name());
            self.tell(event, headers);
        }
    }
}

/// What is told of a login, whatever came of it.
/// Whoever is nobody has no name.
fn login(
    headers: FieldTable,
    connection: &Connection,
    user: Option<&str>,
    mechanism: &str,
) -> FieldTable {
    let (peer_host, peer_port) = address(connection.transport.peer());
    let headers = Tls::of(&connection.transport)
        .of_login(headers)
        .with("auth_mechanism", mechanism)
        .with("protocol", PROTOCOL)
        .with("peer_port", peer_port)
        .with("peer_host", peer_host.as_str())
        .with("connection_name", connection.name().as_str())
        .with("host", address(connection.transport.host()).0.as_str());
    let headers = match user {
        Some(user) => headers.with("name", user),
        None => headers,
    };
    headers.with("connection_type", "network")
}

/// What the client calls itself, if it does.
fn client_name(headers: FieldTable, connection: &Connection) -> FieldTable {
    match &connection.client_name {
        Some(name) => headers.with("user_provided_name", name.as_str()),
        None => headers,
    }
}

/// An address as Erlang has it, `{127,0,0,1}`, and the port; of what has neither, its name.
fn address(address: &PeerAddr) -> (String, FieldValue) {
    let PeerAddr::Tcp(address) = address else {
        return (address.to_string(), "unknown".into());
    };
    let list = |numbers: Vec<String>| format!("{{{}}}", numbers.join(","));
    let host = match SocketAddr::ip(address) {
        IpAddr::V4(host) => list(host.octets().iter().map(u8::to_string).collect()),
        IpAddr::V6(host) => list(host.segments().iter().map(u16::to_string).collect()),
    };
    (host, number(address.port()))
}

#[cfg(test)]
mod tests {
    use warren_amqp::FieldValue;
    use warren_reactor::PeerAddr;

    use super::address;

    #[test]
    fn addresses_are_erlangs() {
        for (given, host, port) in
            [("127.0.0.1:5672", "{127,0,0,1}", 5672), ("[fe80::1]:1", "{65152,0,0,0,0,0,0,1}", 1)]
        {
            let given = PeerAddr::Tcp(given.parse().unwrap());
            assert_eq!(address(&given), (host.into(), FieldValue::I64(port)));
        }
        assert_eq!(address(&PeerAddr::Memory), ("memory".into(), "unknown".into()));
    }
}
