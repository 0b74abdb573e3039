//! Listeners as URLs: `amqp://127.0.0.1:5672`, `amqps://0.0.0.0:5671`, `unix:/run/warren.sock`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use warren_amqp::constants::{DEFAULT_PORT, DEFAULT_TLS_PORT};
use warren_reactor::{BoundPort, PeerAddr, bind_tcp, bind_unix};

/// Where to listen, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// AMQP over TCP: host and port.
    Amqp(String, u16),
    /// The same within TLS.
    Amqps(String, u16),
    /// AMQP on a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Listener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is the same with an empty host.
            return match path.strip_prefix("//").unwrap_or(path) {
                "" => Err(format!("'{text}' names no path: write unix:/path/of/the/socket")),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("'{text}' is no URL: write amqp://127.0.0.1:5672 or unix:/path"));
        };
        let default_port = match scheme {
            "amqp" => DEFAULT_PORT,
            "amqps" => DEFAULT_TLS_PORT,
            _ => {
                return Err(format!(
                    "'{scheme}' listeners are not available: use amqp://host:port, amqps://host:port or unix:/path"
                ));
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '@', '?', '#']) {
            return Err(format!("'{text}' has more than a host and a port"));
        }
        // A colon inside brackets belongs to an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port {
            None => default_port,
            Some(port) => port.parse().map_err(|_| format!("'{port}' in '{text}' is no port"))?,
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(format!("'{text}' names no host: write {scheme}://127.0.0.1:{port}"));
        }
        Ok(match scheme {
            "amqps" => Self::Amqps(host.into(), port),
            _ => Self::Amqp(host.into(), port),
        })
    }
}

impl Listener {
    /// Takes the address, without accepting anyone yet.
    pub(crate) fn bind(&self) -> Result<BoundPort> {
        let failed = || format!("cannot listen on {self}");
        match self {
            Self::Unix(path) => bind_unix(path).with_context(failed),
            Self::Amqp(host, port) | Self::Amqps(host, port) => {
                let addr: SocketAddr = (host.as_str(), *port)
                    .to_socket_addrs()
                    .with_context(failed)?
                    .next()
                    .with_context(failed)?;
                bind_tcp(addr).with_context(failed)
            }
        }
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Amqps(..))
    }

    /// The URL with the address that the system gave.
    pub(crate) fn with_addr(&self, addr: &PeerAddr) -> String {
        match addr {
            PeerAddr::Tcp(addr) if self.is_tls() => format!("amqps://{addr}"),
            PeerAddr::Tcp(addr) => format!("amqp://{addr}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Amqp(host, port) | Self::Amqps(host, port) => {
                let scheme = if self.is_tls() { "amqps" } else { "amqp" };
                let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{}{host}{}:{port}", brackets.0, brackets.1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Listener;

    #[test]
    fn urls_are_read_and_written_back() {
        for (text, again) in [
            ("amqp://127.0.0.1:5672", "amqp://127.0.0.1:5672"),
            ("amqp://localhost", "amqp://localhost:5672"),
            ("amqp://[::1]:0/", "amqp://[::1]:0"),
            ("amqp://[::1]", "amqp://[::1]:5672"),
            ("amqps://localhost", "amqps://localhost:5671"),
            ("amqps://[::1]:7", "amqps://[::1]:7"),
            ("unix:/run/warren.sock", "unix:/run/warren.sock"),
            ("unix:///run/warren.sock", "unix:/run/warren.sock"),
        ] {
            assert_eq!(text.parse::<Listener>().unwrap().to_string(), again, "{text}");
        }
    }

    #[test]
    fn what_is_no_listener_says_why() {
        for (text, why) in [
            ("127.0.0.1:5672", "is no URL"),
            ("redis://127.0.0.1:6379", "'redis' listeners are not available"),
            ("amqp://:5672", "names no host"),
            ("amqp://host:port", "'port' in 'amqp://host:port' is no port"),
            ("amqp://host:5672/vhost", "more than a host and a port"),
            ("unix:", "names no path"),
        ] {
            let error = text.parse::<Listener>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
