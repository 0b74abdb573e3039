//! From a name and a password, or a certificate, to a user.
//!
//! ```text
//!   start-ok --> fast hash, certificate ----------------------------> tune, or refused
//!           \--> slow hash: waits its turn --> another thread --> told by login_answered --^
//! ```
//! A slow hash takes tens of milliseconds and of megabytes, so few are computed at once, and never here: a storm of
//! logins delays logins, and nothing else. What the client sends meanwhile stays unread.

use std::collections::VecDeque;
use std::rc::Rc;

use warren_amqp::ReplyCode;
use warren_amqp::method::connection as methods;

use super::Engine;
use crate::auth::{Checked, SlowCheck};
use crate::connection::{Connection, ConnectionKey};
use crate::exception::Exception;
use crate::limits::Limits;

/// Computes a hash somewhere else, and has [`Engine::login_answered`] told, and [`Engine::hash_ended`].
pub(crate) type Hasher = Rc<dyn Fn(ConnectionKey, SlowCheck)>;

/// Passwords that are being checked.
#[derive(Default)]
pub(crate) struct Logins {
    /// `None`: they are computed in place, as in tests.
    hasher: Option<Hasher>,
    running: usize,
    running_max: usize,
    /// Those whose turn has not come: at most one for each connection, and as long as its handshake may take.
    waiting: VecDeque<(ConnectionKey, SlowCheck)>,
}

/// Where a connection's login stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nobody has said who it is.
    None,
    /// A slow hash is being computed.
    Checking,
    /// It has a user.
    Passed,
    /// It has been told that it has none.
    Refused,
}

impl Engine {
    /// Computes at most `running_max` slow hashes at once, and by `hasher`.
    pub(crate) fn hash_by(&mut self, hasher: Hasher, running_max: usize) {
        self.logins.hasher = Some(hasher);
        self.logins.running_max = running_max;
    }

    /// A client says who it is. [`Connection::login`] tells what becomes of it.
    pub(crate) fn log_in(&mut self, key: ConnectionKey, credentials: Option<(String, String)>) {
        let Some((name, password)) = credentials else {
            return self.finish_login(key, None, Err("malformed response".into()));
        };
        match self.tenancy.begin_login(&name, &password) {
            Checked::Done(outcome) => self.finish_login(key, Some(&name), outcome),
            Checked::Slow(check) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.login = Login::Checking;
                }
                self.logins.waiting.push_back((key, check));
                self.start_hashing();
            }
        }
    }

    /// Starts what may be started.
    fn start_hashing(&mut self) {
        let Some(hasher) = self.logins.hasher.clone() else {
            while let Some((key, check)) = self.logins.waiting.pop_front() {
                let right = check.run();
                self.login_answered(key, &check, right);
            }
            return;
        };
        while self.logins.running < self.logins.running_max {
            let Some((key, check)) = self.logins.waiting.pop_front() else { return };
            // Whose client has gone needs no answer.
            if self.connections.get(key).is_some() {
                self.logins.running += 1;
                hasher(key, check);
            }
        }
    }

    /// The next in turn may be computed.
    pub(crate) fn hash_ended(&mut self) {
        self.logins.running = self.logins.running.saturating_sub(1);
        self.start_hashing();
    }

    /// A hash has been computed.
    pub(crate) fn login_answered(&mut self, key: ConnectionKey, check: &SlowCheck, right: bool) {
        let outcome = self.tenancy.end_login(check, right);
        let waiting = |connection: &&mut Connection| connection.login == Login::Checking;
        if self.connections.get_mut(key).filter(waiting).is_none() {
            return;
        }
        self.finish_login(key, Some(check.name()), outcome);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.transport.resume_reading();
        }
    }

    /// A client has shown a certificate with this name in it.
    pub(crate) fn log_in_by_certificate(
        &mut self,
        key: ConnectionKey,
        name: Result<String, &'static str>,
    ) {
        match name {
            Err(why) => self.finish_login(key, None, Err(why.into())),
            Ok(name) => {
                let known = self.tenancy.users.contains_key(&name);
                let outcome = if known { Ok(()) } else { Err(invalid(&name)) };
                self.finish_login(key, Some(&name), outcome);
            }
        }
    }

    /// `name`: whoever the client says it is, if it says so.
    fn finish_login(
        &mut self,
        key: ConnectionKey,
        name: Option<&str>,
        outcome: Result<(), String>,
    ) {
        let Limits { channel_max, frame_max, heartbeat_s: heartbeat, .. } = self.limits;
        let local = self.limits.loopback_users.iter().find(|user| Some(user.as_str()) == name);
        let clock = self.clock;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let outcome = outcome.and_then(|()| {
            if let Some(name) = local
                && !connection.transport.peer().is_loopback()
            {
                return Err(format!("user '{name}' can only connect via localhost"));
            }
            Ok(())
        });
        let mechanism = connection.mechanism;
        if let Err(why) = outcome {
            tracing::warn!(peer = %connection.transport.peer(), mechanism, why, "a login was refused");
            self.tell_refused(key, mechanism, name, &why);
            let text = format!(
                "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            );
            let exception = Exception::hard(ReplyCode::ACCESS_REFUSED, text);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.refuse_login(&exception, clock);
            }
            return;
        }
        connection.user = name.unwrap_or_default().into();
        connection.login = Login::Passed;
        connection.send(0, &methods::Tune { channel_max, frame_max, heartbeat });
        self.tell_login(key);
    }
}

/// What the log says of a user who is none, or has another password.
pub(crate) fn invalid(name: &str) -> String {
    format!("user '{name}' - invalid credentials")
}
