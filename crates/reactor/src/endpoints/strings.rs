//! Endpoints from strings.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::clients::UnixClientEndpoint;
use super::description::{Arguments, Description, EndpointError, Shape};
use super::hostname::HostnameEndpoint;
use super::servers::{
    AdoptedServerEndpoint, StandardIoEndpoint, TcpServerEndpoint, UnixServerEndpoint,
};
use super::{StreamClientEndpoint, StreamServerEndpoint};

const SERVERS: &str = if cfg!(feature = "tls") {
    "tcp, ssl (or tls), unix, systemd, fd and stdio"
} else {
    "tcp, unix, systemd, fd and stdio (ssl needs the feature \"tls\")"
};
const CLIENTS: &str = if cfg!(feature = "tls") {
    "tcp, tls (or ssl) and unix"
} else {
    "tcp and unix (tls needs the feature \"tls\")"
};

const PORT: &str = "a port is a number from 0 to 65535";
const INTERFACE: &str = "the interface is an IPv4 or IPv6 address; colons in it are written \\:";
const BACKLOG: &str = "the backlog is a number of connections from 1 on";
const SECONDS: &str = "the timeout is a number of seconds greater than 0";

static TCP_SERVER: Shape =
    Shape { names: &["port", "interface", "backlog"], places: 3, example: "tcp:8007" };
#[cfg(feature = "tls")]
static SSL_SERVER: Shape = Shape {
    names: &[
        "port",
        "privateKey",
        "certKey",
        "extraCertChain",
        "clientRoots",
        "interface",
        "backlog",
    ],
    places: 3,
    example: "ssl:443:privateKey=key.pem:certKey=certificate.pem",
};
static UNIX_SERVER: Shape = Shape {
    names: &["address", "mode", "backlog", "lockfile"],
    places: 1,
    example: "unix:/run/service.sock:mode=660",
};
static SYSTEMD: Shape = Shape {
    names: &["domain", "index", "name"],
    places: 1,
    example: "systemd:domain=INET:index=0",
};
static FD: Shape = Shape { names: &["number"], places: 1, example: "fd:3" };
static STDIO: Shape = Shape { names: &[], places: 0, example: "stdio:" };
static TCP_CLIENT: Shape = Shape {
    names: &["host", "port", "timeout", "bindAddress"],
    places: 3,
    example: "tcp:host=example.org:port=80",
};
#[cfg(feature = "tls")]
static TLS_CLIENT: Shape = Shape {
    names: &[
        "host",
        "port",
        "timeout",
        "bindAddress",
        "hostname",
        "certificate",
        "certKey",
        "privateKey",
        "trustRoots",
        "caCertsDir",
        "endpoint",
    ],
    places: 2,
    example: "tls:example.org:443",
};
static UNIX_CLIENT: Shape =
    Shape { names: &["path", "timeout"], places: 1, example: "unix:/run/service.sock" };

/// The endpoint to listen on that `description` describes (Twisted's `serverFromString`).
///
/// | description | meaning |
/// |---|---|
/// | `tcp:8007`, `tcp:8007:interface=127.0.0.1:backlog=50` | a TCP port, on all IPv4 addresses unless one is named; `interface=\:\:` is IPv6 |
/// | `ssl:443:privateKey=key.pem:certKey=certificate.pem` | TLS (also `tls:`). Without `certKey`, both are in the file of `privateKey`, without that in `server.pem`. `extraCertChain=` is a file of the certificates between; `clientRoots=`, of the authorities of clients, who must then show a certificate. `interface` and `backlog` as above |
/// | `unix:/run/service.sock:mode=660:lockfile=1` | a Unix socket, with these permissions (octal), and [a lock](UnixServerEndpoint::lock_file) if wanted |
/// | `systemd:domain=INET:index=0`, `systemd:name=web` | a socket that systemd has given; `domain` (`INET`, `INET6`, `UNIX`) is checked if it is named |
/// | `fd:3` | a listening socket that this process was given under this number |
/// | `stdio:` | the standard input and output |
///
/// Values may be given without names in the order in which they stand here. `\:`, `\=` and `\\` are a colon, an equals
/// sign and a backslash within a value; [`quote_string_argument`](super::quote_string_argument) writes them.
///
/// ```
/// use warren_reactor::endpoints::{StreamServerEndpoint, server_from_string};
/// use warren_reactor::protocols::{for_protocol, wire};
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let endpoint = server_from_string("tcp:0:interface=127.0.0.1")?;
///     let port = endpoint.listen(Box::new(for_protocol(|| wire::Echo)))?;
///     println!("echoes on {}", port.addr());
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` with an [`EndpointError`] that names what is wrong and what is possible. With TLS what is wrong with
/// the files; for a socket that was given, that there is none.
pub fn server_from_string(description: &str) -> io::Result<Box<dyn StreamServerEndpoint>> {
    let description: Description = description.parse()?;
    match description.kind() {
        "tcp" => Ok(Box::new(tcp_server(&description.arguments(&TCP_SERVER)?)?)),
        #[cfg(feature = "tls")]
        "ssl" | "tls" => Ok(Box::new(ssl_server(&description.arguments(&SSL_SERVER)?)?)),
        "unix" => Ok(Box::new(unix_server(&description.arguments(&UNIX_SERVER)?)?)),
        "systemd" => Ok(Box::new(systemd(&description.arguments(&SYSTEMD)?)?)),
        "fd" => {
            let arguments = description.arguments(&FD)?;
            arguments.needed("number")?;
            let wanted = "a descriptor is a number from 0 on";
            let number = |text: &str| text.parse().ok().filter(|fd| 0 <= *fd);
            let fd = arguments.read("number", wanted, number)?.unwrap_or_default();
            Ok(Box::new(AdoptedServerEndpoint::inherited(fd)?))
        }
        "stdio" => {
            // It may end in a colon.
            let empty = description.positional() == [""];
            if !empty {
                description.arguments(&STDIO)?;
            }
            Ok(Box::new(StandardIoEndpoint))
        }
        kind => {
            let (kind, side) = (kind.to_owned(), "server");
            Err(EndpointError::UnknownKind { kind, side, possible: SERVERS }.into())
        }
    }
}

/// The endpoint to connect to that `description` describes (Twisted's `clientFromString`).
///
/// | description | meaning |
/// |---|---|
/// | `tcp:example.org:80`, `tcp:host=example.org:port=80:timeout=30:bindAddress=192.0.2.1` | a [`HostnameEndpoint`] |
/// | `tls:example.org:443` | the same with TLS (also `ssl:`). The certificate must be made out to the host, or to `hostname=`. `trustRoots=` (or `caCertsDir=`) is a file of trusted authorities in PEM, or a folder of such files, in place of those the system trusts; `certificate=` (or `certKey=`) and `privateKey=` are the client's own. `endpoint=` is another description, quoted, of where to connect to instead |
/// | `unix:/run/service.sock:timeout=30` | a Unix socket |
///
/// Backslashes are as for [`server_from_string`].
///
/// # Errors
/// As [`server_from_string`].
pub fn client_from_string(description: &str) -> io::Result<Box<dyn StreamClientEndpoint>> {
    let description: Description = description.parse()?;
    match description.kind() {
        "tcp" => Ok(Box::new(hostname(&description.arguments(&TCP_CLIENT)?)?)),
        #[cfg(feature = "tls")]
        "tls" | "ssl" => tls_client(&description.arguments(&TLS_CLIENT)?),
        "unix" => {
            let arguments = description.arguments(&UNIX_CLIENT)?;
            let endpoint = UnixClientEndpoint::new(arguments.needed("path")?);
            Ok(match timeout(&arguments)? {
                Some(timeout) => Box::new(endpoint.timeout(timeout)),
                None => Box::new(endpoint),
            })
        }
        kind => {
            let (kind, side) = (kind.to_owned(), "client");
            Err(EndpointError::UnknownKind { kind, side, possible: CLIENTS }.into())
        }
    }
}

fn tcp_server(arguments: &Arguments) -> Result<TcpServerEndpoint, EndpointError> {
    arguments.needed("port")?;
    let port = arguments.read("port", PORT, |text| text.parse().ok())?.unwrap_or_default();
    let mut endpoint = TcpServerEndpoint::new(port);
    // All addresses, as in Twisted, when it is empty.
    let interface = |text: &str| match text {
        "" => Some(None),
        text => text.parse::<IpAddr>().ok().map(Some),
    };
    if let Some(interface) = arguments.read("interface", INTERFACE, interface)?.flatten() {
        endpoint = endpoint.interface(interface);
    }
    Ok(match backlog(arguments)? {
        Some(backlog) => endpoint.backlog(backlog),
        None => endpoint,
    })
}

fn backlog(arguments: &Arguments) -> Result<Option<i32>, EndpointError> {
    arguments.read("backlog", BACKLOG, |text| text.parse().ok().filter(|backlog| 0 < *backlog))
}

fn timeout(arguments: &Arguments) -> Result<Option<Duration>, EndpointError> {
    arguments.read("timeout", SECONDS, |text| {
        let seconds = text.parse().ok().filter(|seconds| 0.0 < *seconds)?;
        Duration::try_from_secs_f64(seconds).ok()
    })
}

#[cfg(feature = "tls")]
fn ssl_server(arguments: &Arguments) -> io::Result<super::SslServerEndpoint> {
    use std::path::Path;

    let endpoint = tcp_server(arguments)?;
    let key = arguments.get("privateKey").unwrap_or("server.pem");
    let certificate = arguments.get("certKey").unwrap_or(key);
    let mut options =
        crate::tls::CertificateOptions::from_files(Path::new(certificate), Path::new(key));
    if let Some(more) = arguments.get("extraCertChain") {
        options = options.extra_cert_chain_file(Path::new(more));
    }
    if let Some(roots) = arguments.get("clientRoots") {
        let required = crate::tls::ClientAuth::Required;
        options = options.client_roots_file(Path::new(roots), required);
    }
    Ok(super::SslServerEndpoint::new(&options.build()?, endpoint))
}

fn unix_server(arguments: &Arguments) -> Result<UnixServerEndpoint, EndpointError> {
    let mut endpoint = UnixServerEndpoint::new(arguments.needed("address")?);
    let wanted = "the mode is a number in octal, such as 660";
    let mode = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    if let Some(mode) = arguments.read("mode", wanted, mode)? {
        endpoint = endpoint.mode(mode);
    }
    if let Some(backlog) = backlog(arguments)? {
        endpoint = endpoint.backlog(backlog);
    }
    let lock = arguments.read("lockfile", "it is 0 or 1", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })?;
    Ok(endpoint.lock_file(lock.unwrap_or(false)))
}

fn systemd(arguments: &Arguments) -> io::Result<AdoptedServerEndpoint> {
    let domain = arguments.read("domain", "it is INET, INET6 or UNIX", |text| match text {
        "INET" => Some(rustix::net::AddressFamily::INET),
        "INET6" => Some(rustix::net::AddressFamily::INET6),
        "UNIX" => Some(rustix::net::AddressFamily::UNIX),
        _ => None,
    })?;
    let wanted = "it is the place among the sockets given, from 0 on";
    let index = arguments.read("index", wanted, |text| text.parse().ok())?;
    let endpoint = match (index, arguments.get("name")) {
        (Some(_), Some(name)) => {
            return Err(arguments
                .bad("name", name, "a socket is named by index or by name")
                .into());
        }
        (_, Some(name)) => AdoptedServerEndpoint::systemd_named(name)?,
        (index, None) => AdoptedServerEndpoint::systemd(index.unwrap_or(0))?,
    };
    if let Some(domain) = domain
        && !endpoint.is_of(domain)?
    {
        let value = arguments.get("domain").unwrap_or_default();
        return Err(arguments.bad("domain", value, "the socket given is of another one").into());
    }
    Ok(endpoint)
}

fn hostname(arguments: &Arguments) -> Result<HostnameEndpoint, EndpointError> {
    let host = arguments.needed("host")?;
    arguments.needed("port")?;
    let port = arguments.read("port", PORT, |text| text.parse().ok())?.unwrap_or_default();
    let mut endpoint = HostnameEndpoint::new(host, port);
    if let Some(timeout) = timeout(arguments)? {
        endpoint = endpoint.timeout(timeout);
    }
    let wanted = "it is an address of this machine; colons in it are written \\:";
    let bind = |text: &str| {
        let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
        ip.or_else(|_| text.parse()).ok()
    };
    Ok(match arguments.read("bindAddress", wanted, bind)? {
        Some(bind) => endpoint.bind_address(bind),
        None => endpoint,
    })
}

#[cfg(feature = "tls")]
fn tls_client(arguments: &Arguments) -> io::Result<Box<dyn StreamClientEndpoint>> {
    use std::path::Path;

    let endpoint = match arguments.get("endpoint") {
        Some(inner) => client_from_string(inner)?,
        None => Box::new(hostname(arguments)?),
    };
    let host = match arguments.get("hostname") {
        Some(host) => host,
        None => arguments.needed("host")?,
    };
    let mut options = crate::tls::options_for_client_tls(host);
    if let Some(roots) = arguments.any(&["trustRoots", "caCertsDir"]) {
        let roots = Path::new(roots);
        options =
            if roots.is_dir() { options.roots_folder(roots)? } else { options.roots_file(roots) };
    }
    if let Some(certificate) = arguments.any(&["certificate", "certKey"]) {
        // Both may be in one file.
        let key = arguments.get("privateKey").unwrap_or(certificate);
        options = options.certificate_files(Path::new(certificate), Path::new(key));
    } else if let Some(key) = arguments.get("privateKey") {
        // Both may be in one file.
        options = options.certificate_files(Path::new(key), Path::new(key));
    }
    Ok(Box::new(super::wrap_client_tls(&options.build()?, endpoint)))
}
