//! From the first byte to an open virtual host.

use warren_amqp::constants::{FRAME_MIN_SIZE, PROTOCOL_HEADER};
use warren_amqp::method::{connection, connection as methods};
use warren_amqp::value::RawTable;
use warren_amqp::{FieldTable, Method, ReplyCode};
use warren_reactor::Transport;

use super::{SessionState, Stage};
use crate::engine::{Engine, NODE};
use crate::exception::Exception;
use crate::limits::Limits;

const MECHANISMS: &[u8] = b"PLAIN AMQPLAIN";

impl SessionState {
    /// Takes the protocol header off `data`. False when it has not come whole, or is none.
    pub(super) fn read_header(
        &mut self,
        engine: &Engine,
        transport: &Transport,
        data: &mut &[u8],
    ) -> bool {
        let missing = PROTOCOL_HEADER.len() - self.header.len();
        let (taken, rest) = data.split_at(missing.min(data.len()));
        self.header.extend_from_slice(taken);
        *data = rest;
        if !PROTOCOL_HEADER.starts_with(&self.header) {
            // §4.2.2: what we would have understood, and the end.
            transport.write(&PROTOCOL_HEADER);
            transport.lose_connection();
            self.stage = Stage::Ended;
            return false;
        }
        if self.header.len() < PROTOCOL_HEADER.len() {
            return false;
        }
        self.header = Vec::new();
        self.stage = Stage::Start;
        let connection = self.key.and_then(|key| engine.connections.get(key));
        if let Some(connection) = connection {
            connection.send(
                0,
                &connection::Start {
                    version_major: 0,
                    version_minor: 9,
                    server_properties: server_properties(),
                    mechanisms: MECHANISMS,
                    locales: b"en_US",
                },
            );
        }
        true
    }

    /// A method on channel 0.
    pub(super) fn connection_method(
        &mut self,
        engine: &mut Engine,
        method: Method<'_>,
    ) -> Result<(), Exception> {
        match (self.stage, method) {
            (Stage::Start, Method::ConnectionStartOk(start_ok)) => self.start_ok(engine, &start_ok),
            (Stage::Tune, Method::ConnectionTuneOk(tune_ok)) => self.tune_ok(engine, &tune_ok),
            (Stage::Open, Method::ConnectionOpen(open)) => self.open(engine, &open),
            (_, Method::ConnectionClose(_)) => {
                self.close_channels(engine);
                self.send(engine, 0, &connection::CloseOk {});
                self.end(engine);
                Ok(())
            }
            (Stage::Running, Method::ConnectionUpdateSecret(_)) => {
                // Our users have passwords, not tokens that run out: nothing changes.
                self.send(engine, 0, &connection::UpdateSecretOk {});
                Ok(())
            }
            _ => {
                let state = match self.stage {
                    Stage::Start => "starting",
                    Stage::Tune => "tuning",
                    Stage::Open => "opening",
                    _ => "running",
                };
                let text = format!("unexpected method in connection state {state}");
                Err(Exception::hard(ReplyCode::CHANNEL_ERROR, text))
            }
        }
    }

    fn start_ok(
        &mut self,
        engine: &mut Engine,
        start_ok: &methods::StartOk<'_>,
    ) -> Result<(), Exception> {
        let capabilities =
            start_ok.client_properties.get("capabilities").and_then(|value| value.as_table());
        let capable = |name: &str| {
            let value = capabilities.and_then(|capabilities| capabilities.get(name));
            value.and_then(|value| value.as_bool()).unwrap_or(false)
        };
        self.close_on_refusal = capable("authentication_failure_close");
        let cancel_notify = capable("consumer_cancel_notify");
        let blocked_notify = capable("connection.blocked");
        let client_name = start_ok.client_properties.get("connection_name");
        let client_name = client_name.and_then(|value| value.as_str()).map(str::to_owned);
        let mut client_properties = Vec::new();
        start_ok.client_properties.encode(&mut client_properties);
        if let Some(connection) = self.connection(engine) {
            connection.client_properties = client_properties[4..].into();
            connection.client_name = client_name;
        }
        let (mechanism, credentials) = match start_ok.mechanism {
            "PLAIN" => ("PLAIN", plain(start_ok.response)),
            "AMQPLAIN" => ("AMQPLAIN", amqplain(start_ok.response)),
            other => {
                let text = format!("unknown authentication mechanism '{other}'");
                return Err(Exception::hard(ReplyCode::COMMAND_INVALID, text));
            }
        };
        let user = match self.authenticate(engine, credentials) {
            Ok(user) => user,
            Err((user, why)) => {
                let mechanism = start_ok.mechanism;
                tracing::warn!(mechanism, why, "a login was refused");
                if let Some(key) = self.key {
                    engine.tell_refused(key, mechanism, &user, &why);
                }
                let text = format!(
                    "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
                );
                return Err(Exception::hard(ReplyCode::ACCESS_REFUSED, text).at(0, 0));
            }
        };
        let Limits { channel_max, frame_max, heartbeat_s: heartbeat, .. } = engine.limits;
        let Some(connection) = self.connection(engine) else { return Ok(()) };
        connection.user = user;
        connection.mechanism = mechanism;
        connection.cancel_notify = cancel_notify;
        connection.blocked_notify = blocked_notify;
        connection.send(0, &connection::Tune { channel_max, frame_max, heartbeat });
        self.stage = Stage::Tune;
        if let Some(key) = self.key {
            engine.tell_login(key);
        }
        Ok(())
    }

    /// Who has logged in; or who wanted to, and why not.
    fn authenticate(
        &self,
        engine: &mut Engine,
        credentials: Option<(String, String)>,
    ) -> Result<String, (String, String)> {
        let Some((user, password)) = credentials else {
            return Err((String::new(), "malformed response".into()));
        };
        if let Err(why) = engine.tenancy.authenticate(&user, &password) {
            return Err((user, why));
        }
        let local = engine.limits.loopback_users.contains(&user);
        let here = self
            .connection(engine)
            .is_none_or(|connection| connection.transport.peer().is_loopback());
        if local && !here {
            let why = format!("user '{user}' can only connect via localhost");
            return Err((user, why));
        }
        Ok(user)
    }

    fn tune_ok(&mut self, engine: &mut Engine, tune_ok: &methods::TuneOk) -> Result<(), Exception> {
        let refused = |what: &str, value: u32, relation: &str, limit: u32| {
            let text = format!("negotiated {what} = {value} is {relation} allowed value ({limit})");
            Err(Exception::hard(ReplyCode::NOT_ALLOWED, text))
        };
        let limits = &engine.limits;
        let channel_max = tune_ok.channel_max;
        if channel_max == 0 || limits.channel_max < channel_max {
            // 0 means no limit, which is more than ours.
            let limit = limits.channel_max.into();
            return refused("channel_max", channel_max.into(), "higher than the maximum", limit);
        }
        match tune_ok.frame_max {
            0 => return refused("frame_max", 0, "higher than the maximum", limits.frame_max),
            value if value < FRAME_MIN_SIZE => {
                return refused("frame_max", value, "lower than the minimum", FRAME_MIN_SIZE);
            }
            value if limits.frame_max < value => {
                return refused("frame_max", value, "higher than the maximum", limits.frame_max);
            }
            value => self.frame_max = value,
        }
        let frame_max = self.frame_max;
        self.channel_max = channel_max;
        if let Some(connection) = self.connection(engine) {
            connection.frame_max = frame_max;
            connection.channel_max = channel_max;
            connection.heartbeat = tune_ok.heartbeat.into();
        }
        self.stage = Stage::Open;
        Ok(())
    }

    fn open(&mut self, engine: &mut Engine, open: &methods::Open<'_>) -> Result<(), Exception> {
        let user = self.connection(engine).map(|connection| connection.user.clone());
        let vhost = engine.check_open(user.as_deref().unwrap_or_default(), open.virtual_host)?;
        if let Some(connection) = self.connection(engine) {
            connection.vhost = vhost;
            connection.deadline = None;
            connection.send(0, &connection::OpenOk {});
            tracing::info!(peer = %connection.transport.peer(), user = connection.user, name = connection.client_name, "a connection is open");
        }
        self.stage = Stage::Running;
        if let Some(key) = self.key {
            engine.tell_connection_created(key);
        }
        Ok(())
    }
}

fn server_properties() -> FieldTable {
    let capabilities = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ];
    let capabilities = capabilities
        .into_iter()
        .fold(FieldTable::new(), |table, capability| table.with(capability, true));
    FieldTable::new()
        .with("product", "Warren")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("platform", "Rust")
        .with("copyright", "Copyright (c) The Warren contributors")
        .with("information", "Licensed under Apache-2.0 or MIT")
        .with("capabilities", capabilities)
        .with("cluster_name", NODE)
}

/// RFC 4616: an identity to act for, the user, the password, between zeros. Nobody acts for another here.
fn plain(response: &[u8]) -> Option<(String, String)> {
    let mut parts = response.split(|byte| *byte == 0);
    let (acts_for, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if !acts_for.is_empty() || parts.next().is_some() {
        return None;
    }
    Some((String::from_utf8(user.to_vec()).ok()?, String::from_utf8(password.to_vec()).ok()?))
}

/// AMQP 0-8: the pairs of a field table, without its length.
fn amqplain(response: &[u8]) -> Option<(String, String)> {
    let table = RawTable::new(response).to_table().ok()?;
    let text = |key| Some(table.get(key)?.as_str()?.to_owned());
    Some((text("LOGIN")?, text("PASSWORD")?))
}
