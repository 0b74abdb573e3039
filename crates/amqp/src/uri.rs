//! `amqp://user:password@host:port/vhost?parameters`, as RabbitMQ's clients read it.
//!
//! | part | when left out |
//! |---|---|
//! | user, password | `guest`, `guest` |
//! | host | `localhost`; IPv6 in brackets |
//! | port | 5672; 5671 for `amqps` |
//! | vhost | `/`, also for a path of only `/`; a slash within is `%2F` |
//! | `heartbeat` | seconds; what the server proposes |
//! | `connection_timeout` | milliseconds for connecting and the handshake; 10000 |
//! | `channel_max`, `frame_max` | what the server proposes |
//! | `auth_mechanism` | `plain`, then `amqplain`; or `external`. May stand there several times: the first that the server offers |
//! | `connection_name` | none: what the server calls the connection in its lists |
//! | `cacertfile` | who may vouch for the server, in PEM; those whom the system trusts |
//! | `certfile`, `keyfile` | none: the client's certificate and its key, in PEM; the key may stand in `certfile` |
//! | `verify` | `verify_peer`; or `verify_none`, for tests |
//! | `server_name_indication` | the host: whom the certificate is for; `disable`: the server is not told |
//!
//! The last four rows are for `amqps` alone. Everything is percent-decoded. Every mistake is an error, unknown
//! parameters too.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::FieldTable;
use crate::constants::{DEFAULT_PORT, DEFAULT_TLS_PORT, FRAME_MIN_SIZE, SHORT_STRING_MAX};

/// Where to connect, as whom, and how.
///
/// ```
/// use warren_amqp::AmqpUri;
/// let uri: AmqpUri = "amqp://me:p%40ss@broker:5673/orders?heartbeat=10".parse()?;
/// assert_eq!((uri.user.as_str(), uri.password.as_str()), ("me", "p@ss"));
/// assert_eq!((uri.host.as_str(), uri.port, uri.vhost.as_str()), ("broker", 5673, "orders"));
/// # Ok::<(), warren_amqp::UriError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AmqpUri {
    /// `amqps`?
    pub tls: bool,
    /// The user.
    pub user: String,
    /// The password; never shown by `Debug` and `Display`.
    pub password: String,
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The virtual host, at most 255 bytes.
    pub vhost: String,
    /// Seconds between signs of life; `None`: as the server proposes; 0: none.
    pub heartbeat: Option<u16>,
    /// How long connecting and the handshake may take.
    pub connection_timeout: Duration,
    /// The highest channel number wanted.
    pub channel_max: Option<u16>,
    /// The largest frame wanted, in octets; at least 4096, or 0 for no limit.
    pub frame_max: Option<u32>,
    /// How to log in: the first of these that the server offers.
    pub auth_mechanisms: Vec<AuthMechanism>,
    /// What the connection is called in the server's lists.
    pub connection_name: Option<String>,
    /// Who may vouch for the server, in PEM; `None`: those whom the system trusts.
    pub cacertfile: Option<PathBuf>,
    /// The client's own certificate, followed by those that vouch for it, in PEM.
    pub certfile: Option<PathBuf>,
    /// Its key in PEM; `None`: it stands in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Whether somebody must vouch for the server.
    pub verify_peer: bool,
    /// Whom the server's certificate must be for, and what the server is told.
    pub server_name: ServerName,
}

/// Whom a server's certificate must be for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ServerName {
    /// The host.
    #[default]
    Host,
    /// Another one.
    Other(String),
    /// The host, but the server is not told which one is meant.
    Untold,
}

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMechanism {
    /// User and password, separated by zero octets.
    Plain,
    /// The same in a field table.
    AmqPlain,
    /// By the client's certificate: the server knows whose it is.
    External,
}

impl AuthMechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::AmqPlain, Self::External];

    /// Its name in AMQP, where case matters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
            Self::External => "EXTERNAL",
        }
    }
}

/// Why a text is no AMQP URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UriError {
    /// Not `amqp://` or `amqps://`.
    #[error("an AMQP URL begins with amqp:// or amqps://, not with `{0}`")]
    Scheme(String),
    /// A `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the {part} `{text}` is badly percent-encoded")]
    Encoding {
        /// `user`, `vhost`, ...
        part: &'static str,
        /// As it stood.
        text: String,
    },
    /// A port that is no number from 1 to 65535.
    #[error("`{0}` is no port; it is a number from 1 to 65535")]
    Port(String),
    /// A bracket without its other half, or a colon too many.
    #[error("`{0}` is no host; an IPv6 address stands in brackets, as in [::1]")]
    Host(String),
    /// More than one path segment, or a vhost over 255 bytes.
    #[error("`{0}` is no virtual host; a slash in its name is written %2F, its length at most 255")]
    Vhost(String),
    /// A parameter's value.
    #[error("parameter {name}: `{value}` is not {wanted}")]
    Parameter {
        /// Its name.
        name: String,
        /// What stood there.
        value: String,
        /// What can stand there.
        wanted: &'static str,
    },
    /// A parameter that means nothing.
    #[error(
        "unknown parameter `{0}`; there are heartbeat, connection_timeout, channel_max, frame_max, \
         auth_mechanism, connection_name, and for amqps cacertfile, certfile, keyfile, verify, \
         server_name_indication"
    )]
    UnknownParameter(String),
    /// A parameter of an encrypted connection, where none is asked for.
    #[error("parameter {0} is for amqps:// alone: an amqp:// connection is not encrypted")]
    NotEncrypted(String),
    /// `keyfile` without `certfile`.
    #[error("parameter keyfile needs certfile: a key without its certificate is of no use")]
    KeyAlone,
}

impl Default for AmqpUri {
    fn default() -> Self {
        AmqpUri {
            tls: false,
            user: "guest".into(),
            password: "guest".into(),
            host: "localhost".into(),
            port: DEFAULT_PORT,
            vhost: "/".into(),
            heartbeat: None,
            connection_timeout: Duration::from_secs(10),
            channel_max: None,
            frame_max: None,
            auth_mechanisms: vec![AuthMechanism::Plain, AuthMechanism::AmqPlain],
            connection_name: None,
            cacertfile: None,
            certfile: None,
            keyfile: None,
            verify_peer: true,
            server_name: ServerName::Host,
        }
    }
}

impl FromStr for AmqpUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let mut uri = AmqpUri::default();
        let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
        if !text.contains("://") || !(is(scheme, "amqp") || is(scheme, "amqps")) {
            return Err(UriError::Scheme(without_password(text)));
        }
        if is(scheme, "amqps") {
            (uri.tls, uri.port) = (true, DEFAULT_TLS_PORT);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        // The last @ separates: a password may hold one that nobody encoded.
        let address = match authority.rsplit_once('@') {
            Some((login, address)) => {
                uri.login(login)?;
                address
            }
            None => authority,
        };
        uri.address(address)?;
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            let vhost = decode("vhost", path)?;
            if path.contains('/') || SHORT_STRING_MAX < vhost.len() {
                return Err(UriError::Vhost(path.to_owned()));
            }
            uri.vhost = vhost.into_owned();
        }
        let mut mechanisms = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decode("value of a parameter", value)?;
            match name {
                "auth_mechanism" => mechanisms.push(mechanism(&value)?),
                name => uri.parameter(name, &value)?,
            }
        }
        if !mechanisms.is_empty() {
            uri.auth_mechanisms = mechanisms;
        }
        if uri.keyfile.is_some() && uri.certfile.is_none() {
            return Err(UriError::KeyAlone);
        }
        Ok(uri)
    }
}

impl AmqpUri {
    fn login(&mut self, login: &str) -> Result<(), UriError> {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        self.user = decode("user", user)?.into_owned();
        if let Some(password) = password {
            // The error must not repeat the password.
            self.password = decode("password", password)
                .map_err(|_| UriError::Encoding { part: "password", text: "...".into() })?
                .into_owned();
        }
        Ok(())
    }

    fn address(&mut self, address: &str) -> Result<(), UriError> {
        let bad = || UriError::Host(address.to_owned());
        let (host, port) = if let Some(rest) = address.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(bad)?;
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err(bad()),
            }
        } else {
            match address.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(bad()),
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            }
        };
        if !host.is_empty() {
            self.host = decode("host", host)?.into_owned();
        }
        if let Some(port) = port {
            self.port = port
                .parse()
                .ok()
                .filter(|&port| port != 0)
                .ok_or_else(|| UriError::Port(port.to_owned()))?;
        }
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        let wrong =
            |wanted| UriError::Parameter { name: name.to_owned(), value: value.to_owned(), wanted };
        match name {
            "heartbeat" => {
                let heartbeat = value.parse();
                self.heartbeat =
                    Some(heartbeat.map_err(|_| wrong("a number of seconds from 0 to 65535"))?);
            }
            "connection_timeout" => {
                let timeout_ms: u32 =
                    value.parse().map_err(|_| wrong("a number of milliseconds"))?;
                self.connection_timeout = Duration::from_millis(timeout_ms.into());
            }
            "channel_max" => {
                let channel_max = value.parse();
                self.channel_max =
                    Some(channel_max.map_err(|_| wrong("a number from 0 to 65535"))?);
            }
            "frame_max" => {
                let frame_max: u32 = value.parse().map_err(|_| wrong("a number of octets"))?;
                if frame_max != 0 && frame_max < FRAME_MIN_SIZE {
                    return Err(wrong("0 or at least 4096"));
                }
                self.frame_max = Some(frame_max);
            }
            "connection_name" => self.connection_name = Some(value.to_owned()),
            "cacertfile" | "certfile" | "keyfile" | "verify" | "server_name_indication"
                if !self.tls =>
            {
                return Err(UriError::NotEncrypted(name.to_owned()));
            }
            "cacertfile" | "certfile" | "keyfile" if value.is_empty() => {
                return Err(wrong("the path of a file"));
            }
            "cacertfile" => self.cacertfile = Some(value.into()),
            "certfile" => self.certfile = Some(value.into()),
            "keyfile" => self.keyfile = Some(value.into()),
            "verify" => {
                self.verify_peer = match value {
                    "verify_peer" => true,
                    "verify_none" => false,
                    _ => return Err(wrong("verify_peer or verify_none")),
                };
            }
            "server_name_indication" => {
                self.server_name = match value {
                    "" => return Err(wrong("a host or disable")),
                    "disable" => ServerName::Untold,
                    host => ServerName::Other(host.to_owned()),
                };
            }
            _ => return Err(UriError::UnknownParameter(name.to_owned())),
        }
        Ok(())
    }

    /// How to log in with a server that offers these mechanisms, names with spaces between them: the first of ours
    /// that is among them, and what to answer. `None` when there is none.
    pub fn sasl(&self, offered: &[u8]) -> Option<(AuthMechanism, Vec<u8>)> {
        let offers = |mechanism: &&AuthMechanism| {
            offered.split(|octet| *octet == b' ').any(|name| name == mechanism.name().as_bytes())
        };
        let mechanism = *self.auth_mechanisms.iter().find(offers)?;
        let (user, password) = (self.user.as_str(), self.password.as_str());
        let response = match mechanism {
            AuthMechanism::Plain => format!("\0{user}\0{password}").into_bytes(),
            AuthMechanism::AmqPlain => {
                let mut table = Vec::new();
                FieldTable::new().with("LOGIN", user).with("PASSWORD", password).encode(&mut table);
                // Without the length.
                table.split_off(4)
            }
            AuthMechanism::External => Vec::new(),
        };
        Some((mechanism, response))
    }
}

/// The URL without its password and parameters, for logs and messages.
impl fmt::Display for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "amqps://" } else { "amqp://" })?;
        encode(f, &self.user)?;
        f.write_str("@")?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            encode(f, &self.host)?;
        }
        write!(f, ":{}/", self.port)?;
        encode(f, &self.vhost)
    }
}

impl fmt::Debug for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpUri({self})")
    }
}

fn mechanism(value: &str) -> Result<AuthMechanism, UriError> {
    let found = AuthMechanism::ALL.into_iter().find(|mechanism| is(value, mechanism.name()));
    found.ok_or_else(|| UriError::Parameter {
        name: "auth_mechanism".into(),
        value: value.to_owned(),
        wanted: "plain, amqplain or external",
    })
}

fn is(text: &str, name: &str) -> bool {
    text.eq_ignore_ascii_case(name)
}

/// What may be shown of a text that is no URL: nothing between `//` and the last `@`.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("...@{rest}"),
        None => text.to_owned(),
    }
}

fn decode<'t>(part: &'static str, text: &'t str) -> Result<Cow<'t, str>, UriError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let bad = || UriError::Encoding { part, text: text.to_owned() };
    let digit = |octet: Option<&u8>| octet.and_then(|&octet| char::from(octet).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut octets = text.as_bytes().iter();
    while let Some(&octet) = octets.next() {
        if octet == b'%' {
            let high = digit(octets.next()).ok_or_else(bad)?;
            let low = digit(octets.next()).ok_or_else(bad)?;
            decoded.push((high * 16 + low) as u8);
        } else {
            decoded.push(octet);
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| bad())
}

fn encode(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            write!(f, "{}", char::from(octet))?;
        } else {
            write!(f, "%{octet:02X}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match text.parse::<AmqpUri>() {
            Ok(uri) => format!("{uri} {}", uri.password),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn parts_and_their_defaults() {
        check("amqp://", "amqp://guest@localhost:5672/%2F guest");
        check("amqp://localhost/", "amqp://guest@localhost:5672/%2F guest");
        check("AMQPS://h", "amqps://guest@h:5671/%2F guest");
        check("amqp://u:p@h:1/v", "amqp://u@h:1/v p");
        check("amqp://u:@h", "amqp://u@h:5672/%2F ");
        check("amqp://u%3A:p%2F%40@h/%2f", "amqp://u%3A@h:5672/%2F p/@");
        check("amqp://u:p@ss@h", "amqp://u@h:5672/%2F p@ss");
        check("amqp://[::1]:99/v", "amqp://guest@[::1]:99/v guest");
        check("amqp://[fe80::2]", "amqp://guest@[fe80::2]:5672/%2F guest");
    }

    #[test]
    fn mistakes_are_named() {
        check("http://h", "an AMQP URL begins with amqp:// or amqps://, not with `http://h`");
        check("u:secret@h", "an AMQP URL begins with amqp:// or amqps://, not with `...@h`");
        check("amqp://h:0", "`0` is no port; it is a number from 1 to 65535");
        check("amqp://h:", "`` is no port; it is a number from 1 to 65535");
        check("amqp://::1", "`::1` is no host; an IPv6 address stands in brackets, as in [::1]");
        check("amqp://[::1", "`[::1` is no host; an IPv6 address stands in brackets, as in [::1]");
        check("amqp://u:%zz@h", "the password `...` is badly percent-encoded");
        check("amqp://h/%ff", "the vhost `%ff` is badly percent-encoded");
        check(
            "amqp://h/a/b",
            "`a/b` is no virtual host; a slash in its name is written %2F, its length at most 255",
        );
        check(
            "amqp://h?heartbeat=soon",
            "parameter heartbeat: `soon` is not a number of seconds from 0 to 65535",
        );
        check("amqp://h?frame_max=100", "parameter frame_max: `100` is not 0 or at least 4096");
        check(
            "amqp://h?colour=red",
            "unknown parameter `colour`; there are heartbeat, connection_timeout, channel_max, \
             frame_max, auth_mechanism, connection_name, and for amqps cacertfile, certfile, \
             keyfile, verify, server_name_indication",
        );
        check(
            "amqp://h?auth_mechanism=gssapi",
            "parameter auth_mechanism: `gssapi` is not plain, amqplain or external",
        );
        check(
            "amqp://h?cacertfile=/a",
            "parameter cacertfile is for amqps:// alone: an amqp:// connection is not encrypted",
        );
        check("amqps://h?verify=no", "parameter verify: `no` is not verify_peer or verify_none");
        check("amqps://h?certfile=", "parameter certfile: `` is not the path of a file");
        check(
            "amqps://h?keyfile=/a",
            "parameter keyfile needs certfile: a key without its certificate is of no use",
        );
        check("amqp://h?heartbeat=%zz", "the value of a parameter `%zz` is badly percent-encoded");
    }

    #[test]
    fn parameters_are_read() {
        let uri: AmqpUri =
            "amqp://h/v?heartbeat=5&connection_timeout=1500&channel_max=7&frame_max=8192\
             &auth_mechanism=AMQPLAIN"
                .parse()
                .unwrap();
        assert_eq!(uri.heartbeat, Some(5));
        assert_eq!(uri.connection_timeout, Duration::from_millis(1500));
        assert_eq!((uri.channel_max, uri.frame_max), (Some(7), Some(8192)));
        assert_eq!(uri.auth_mechanisms, [AuthMechanism::AmqPlain]);
        assert_eq!(uri.vhost, "v");
    }

    #[test]
    fn parameters_of_encryption_are_read() {
        let uri: AmqpUri = "amqps://h?cacertfile=/a%20b/ca.pem&certfile=c.pem&keyfile=k.pem\
             &verify=verify_none&server_name_indication=other&connection_name=%C3%A9"
            .parse()
            .unwrap();
        assert_eq!(uri.cacertfile.as_deref(), Some("/a b/ca.pem".as_ref()));
        assert_eq!(uri.certfile.as_deref(), Some("c.pem".as_ref()));
        assert_eq!(uri.keyfile.as_deref(), Some("k.pem".as_ref()));
        assert!(!uri.verify_peer);
        assert_eq!(uri.server_name, ServerName::Other("other".into()));
        assert_eq!(uri.connection_name.as_deref(), Some("\u{e9}"));
        let uri: AmqpUri = "amqps://h?server_name_indication=disable".parse().unwrap();
        assert_eq!((uri.server_name, uri.verify_peer), (ServerName::Untold, true));
    }

    #[test]
    fn the_first_mechanism_that_is_offered_is_used() {
        let uri: AmqpUri =
            "amqp://u:p@h?auth_mechanism=external&auth_mechanism=plain".parse().unwrap();
        let external = Some((AuthMechanism::External, Vec::new()));
        assert_eq!(uri.sasl(b"PLAIN EXTERNAL"), external);
        let plain = Some((AuthMechanism::Plain, b"\0u\0p".to_vec()));
        assert_eq!(uri.sasl(b"AMQPLAIN PLAIN"), plain);
        assert_eq!(uri.sasl(b"AMQPLAIN"), None);
        assert_eq!(uri.sasl(b""), None);
        // Both of user and password, where nothing is said.
        let uri = AmqpUri::default();
        let (mechanism, response) = uri.sasl(b"AMQPLAIN").unwrap();
        assert_eq!(mechanism, AuthMechanism::AmqPlain);
        assert_eq!(response, b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest");
    }
}
