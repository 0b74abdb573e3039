//! From the first byte to an open virtual host.

use warren_amqp::constants::{FRAME_MIN_SIZE, PROTOCOL_HEADER};
use warren_amqp::method::{connection, connection as methods};
use warren_amqp::{FieldTable, Method, ReplyCode};
use warren_reactor::Transport;

use super::{SessionState, Stage};
use crate::auth::mechanism::{amqplain, plain};
use crate::auth::{CertLogin, Mechanism};
use crate::engine::login::Login;
use crate::engine::{Engine, NODE};
use crate::exception::Exception;

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
                    mechanisms: self.login.offer().as_bytes(),
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
                self.slots.clear();
                if self.key.is_none_or(|key| engine.end_connection(key)) {
                    self.send(engine, 0, &connection::CloseOk {});
                    self.end(engine);
                } else {
                    // The engine does the same once the channels have what they are owed.
                    self.stage = Stage::Ended;
                    let clock = engine.clock;
                    if let Some(connection) = self.connection(engine) {
                        connection.close_by(clock);
                    }
                }
                Ok(())
            }
            (Stage::Running, Method::ConnectionUpdateSecret(_)) => {
                // Our users have passwords, not tokens that run out: nothing changes.
                self.send(engine, 0, &connection::UpdateSecretOk {});
                Ok(())
            }
            _ => {
                let state = match self.stage {
                    Stage::Start | Stage::Checking => "starting",
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
        let close_on_refusal = capable("authentication_failure_close");
        let cancel_notify = capable("consumer_cancel_notify");
        let blocked_notify = capable("connection.blocked");
        let client_name = start_ok.client_properties.get("connection_name");
        let client_name = client_name.and_then(|value| value.as_str()).map(str::to_owned);
        let Some(mechanism) = self.login.find(start_ok.mechanism) else {
            let text = format!("unknown authentication mechanism '{}'", start_ok.mechanism);
            return Err(Exception::hard(ReplyCode::COMMAND_INVALID, text));
        };
        let mut client_properties = Vec::new();
        start_ok.client_properties.encode(&mut client_properties);
        let Some(key) = self.key else { return Ok(()) };
        let Some(connection) = engine.connections.get_mut(key) else { return Ok(()) };
        connection.close_on_refusal = close_on_refusal;
        connection.client_name = client_name;
        connection.client_properties = client_properties[4..].into();
        connection.mechanism = mechanism.name();
        connection.cancel_notify = cancel_notify;
        connection.blocked_notify = blocked_notify;
        self.stage = Stage::Checking;
        let credentials = match mechanism {
            Mechanism::Plain => Some(plain(start_ok.response)),
            Mechanism::AmqPlain => Some(amqplain(start_ok.response)),
            Mechanism::External => {
                let name = certificate_name(&connection.transport, self.login.cert_login);
                engine.log_in_by_certificate(key, name);
                None
            }
        };
        if let Some(credentials) = credentials {
            engine.log_in(key, credentials);
        }
        self.see_login(engine);
        Ok(())
    }

    fn connection_closes(&self, engine: &Engine) -> bool {
        self.key.and_then(|key| engine.connections.get(key)).is_some_and(|of| of.closing)
    }

    /// What has become of the login, which is told elsewhere.
    pub(super) fn see_login(&mut self, engine: &Engine) {
        if self.stage != Stage::Checking {
            return;
        }
        let connection = self.key.and_then(|key| engine.connections.get(key));
        self.stage = match connection.map(|connection| connection.login) {
            Some(Login::None | Login::Checking) => Stage::Checking,
            Some(Login::Passed) => Stage::Tune,
            Some(Login::Refused) if self.connection_closes(engine) => Stage::Closing,
            Some(Login::Refused) | None => Stage::Ended,
        };
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

/// The user in the client's certificate, or why there is none, in RabbitMQ's words.
fn certificate_name(transport: &Transport, from: CertLogin) -> Result<String, &'static str> {
    let Some(tls) = transport.tls_info() else { return Err("not a TLS-enabled connection") };
    let Some(certificate) = tls.peer_certificates.first() else {
        return Err("connection peer presented no TLS (x.509) certificate");
    };
    from.user(certificate).ok_or("no name found")
}
