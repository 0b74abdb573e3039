//! Listeners as URLs: `amqp://127.0.0.1:5672`, `amqps://0.0.0.0:5671`, `unix:/run/warren.sock`, with options behind a
//! question mark.
//!
//! ```text
//!   proxy_protocol=true              everyone begins with a PROXY header; =10.0.0.0/8+::1: these do, others do not
//!   auth_mechanisms=EXTERNAL+PLAIN   what is offered here
//!   mode=660                         who may use a Unix socket; its owner alone unless told otherwise
//! ```

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use rustix::process::umask;
use warren_amqp::constants::{DEFAULT_PORT, DEFAULT_TLS_PORT};
use warren_broker::Mechanism;
use warren_reactor::proxy_protocol::Network;
use warren_reactor::{BoundPort, PeerAddr, bind_tcp, bind_unix};

/// Where to listen, for what, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    place: Place,
    /// Who sends headers of the PROXY protocol: those of these networks, or all if there are none. `None`: nobody.
    proxies: Option<Vec<Network>>,
    /// What is offered to log in with; `None`: what all listeners offer.
    mechanisms: Option<Vec<Mechanism>>,
    /// Who may use a Unix socket.
    mode: Mode,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// AMQP over TCP: host and port.
    Amqp(String, u16),
    /// The same within TLS.
    Amqps(String, u16),
    /// AMQP on a Unix socket.
    Unix(PathBuf),
}

impl From<Place> for Listener {
    fn from(place: Place) -> Self {
        Self { place, proxies: None, mechanisms: None, mode: Mode::RUSR | Mode::WUSR }
    }
}

impl FromStr for Listener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, options) = text.split_once('?').unwrap_or((text, ""));
        let mut listener = Self::from(place.parse::<Place>()?);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            listener.set(name, value).map_err(|error| format!("{error}, in '{text}'"))?;
        }
        Ok(listener)
    }
}

impl Listener {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "proxy_protocol" => {
                self.proxies = match value {
                    "false" => None,
                    "true" => Some(Vec::new()),
                    networks => Some(list(networks)?),
                };
            }
            "auth_mechanisms" => self.mechanisms = Some(list(value)?),
            "mode" if matches!(self.place, Place::Unix(_)) => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                let wrong =
                    || format!("'{value}' is no mode: write it as chmod takes it, like 660");
                self.mode = Mode::from_bits_truncate(mode.ok_or_else(wrong)?);
            }
            _ => {
                return Err(format!(
                    "a listener has no option '{name}': write proxy_protocol=, auth_mechanisms= or, of a Unix socket, mode="
                ));
            }
        }
        Ok(())
    }

    /// Takes the address, without accepting anyone yet.
    pub(crate) fn bind(&self) -> Result<BoundPort> {
        let failed = || format!("cannot listen on {self}");
        match &self.place {
            Place::Unix(path) => {
                // Nobody else may come in between its making and a change of its mode.
                let before = umask(self.mode.complement());
                let bound = bind_unix(path);
                umask(before);
                bound.with_context(failed)
            }
            Place::Amqp(host, port) | Place::Amqps(host, port) => {
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
        matches!(self.place, Place::Amqps(..))
    }

    /// How its connections learn of their real peers, if they come through proxies.
    pub(crate) fn proxies(&self) -> Option<&[Network]> {
        self.proxies.as_deref()
    }

    /// What it offers to log in with. Certificates only where there are any.
    ///
    /// # Errors
    /// When it could offer nothing, or not what it was told to.
    pub(crate) fn mechanisms(
        &self,
        usual: &[Mechanism],
        certificates: bool,
    ) -> Result<Vec<Mechanism>> {
        let certificates = certificates && self.is_tls();
        let external = |mechanisms: &[Mechanism]| mechanisms.contains(&Mechanism::External);
        if self.mechanisms.as_deref().is_some_and(external) && !certificates {
            bail!(
                "{self} cannot offer EXTERNAL: that takes amqps:// and --tls-ca, so that clients show certificates"
            );
        }
        let mut offered = self.mechanisms.clone().unwrap_or_else(|| usual.to_vec());
        offered.retain(|mechanism| certificates || *mechanism != Mechanism::External);
        if offered.is_empty() {
            bail!("{self} offers no mechanism to log in with: see --auth-mechanisms");
        }
        Ok(offered)
    }

    /// The URL with the address that the system gave, without options.
    pub(crate) fn with_addr(&self, addr: &PeerAddr) -> String {
        match addr {
            PeerAddr::Tcp(addr) if self.is_tls() => format!("amqps://{addr}"),
            PeerAddr::Tcp(addr) => format!("amqp://{addr}"),
            _ => self.to_string(),
        }
    }
}

/// Values with pluses between them: commas separate listeners.
fn list<T: FromStr<Err = String>>(text: &str) -> Result<Vec<T>, String> {
    text.split('+').map(str::parse).collect()
}

impl FromStr for Place {
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

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Amqp(host, port) | Place::Amqps(host, port) => {
                let scheme = if self.is_tls() { "amqps" } else { "amqp" };
                let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{}{host}{}:{port}", brackets.0, brackets.1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use warren_broker::Mechanism;

    use super::{Listener, Mode, Place};

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
            ("amqp://host?proxy_protocol=yes", "'yes' is no network"),
            ("amqp://host?auth_mechanisms=PLAIN+X", "'X' is no mechanism"),
            ("amqp://host?mode=660", "no option 'mode'"),
            ("unix:/s?mode=rw", "'rw' is no mode"),
            ("unix:/s?mode=1777", "'1777' is no mode"),
            ("amqp://host?heartbeat=1", "no option 'heartbeat'"),
        ] {
            let error = text.parse::<Listener>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn options_stand_behind_a_question_mark() {
        let listener = |text: &str| text.parse::<Listener>().unwrap();
        let plain = listener("amqp://host");
        assert_eq!((plain.proxies(), plain.mode), (None, Mode::RUSR | Mode::WUSR));
        assert_eq!(listener("amqp://host?proxy_protocol=true").proxies(), Some(&[][..]));
        let some =
            listener("amqps://[::1]:7?proxy_protocol=10.0.0.0/8+::1&auth_mechanisms=external");
        assert_eq!(some.proxies().map(<[_]>::len), Some(2));
        assert_eq!(some.mechanisms, Some(vec![Mechanism::External]));
        assert_eq!(some.to_string(), "amqps://[::1]:7");
        let unix = listener("unix:/run/w?mode=0660");
        assert_eq!(unix.place, Place::Unix(PathBuf::from("/run/w")));
        assert_eq!(unix.mode.bits(), 0o660);
    }

    #[test]
    fn certificates_are_for_those_who_show_them() {
        use Mechanism::{AmqPlain, External, Plain};
        let usual = [Plain, AmqPlain, External];
        let offered = |text: &str, certificates: bool| {
            text.parse::<Listener>().unwrap().mechanisms(&usual, certificates)
        };
        assert_eq!(offered("amqp://h", true).unwrap(), [Plain, AmqPlain]);
        assert_eq!(offered("amqps://h", false).unwrap(), [Plain, AmqPlain]);
        assert_eq!(offered("amqps://h", true).unwrap(), usual);
        assert_eq!(offered("amqps://h?auth_mechanisms=EXTERNAL", true).unwrap(), [External]);
        let error = offered("amqp://h?auth_mechanisms=EXTERNAL", true).unwrap_err().to_string();
        assert!(error.contains("cannot offer EXTERNAL"), "{error}");
        let none = "amqp://h".parse::<Listener>().unwrap().mechanisms(&[External], true);
        assert!(none.unwrap_err().to_string().contains("offers no mechanism"));
    }
}
