//! Settings of both sides.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use warren_hub::net::tls::rustls::ServerConfig;
use warren_hub::net::tls::rustls::pki_types::ServerName;
use warren_hub::net::tls::{Acceptor, ClientAuth, Connector, TlsVersion, explain};

use super::session::{TlsLayer, note_names};

/// Certificates or a key in PEM, or the file that has them.
#[derive(Clone)]
enum Pem {
    Text(String),
    File(PathBuf),
}

impl Pem {
    fn read(&self) -> io::Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
            }),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Text(_) => "the text given".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[derive(Clone)]
struct Identity {
    /// The first is the certificate itself; they are read as one.
    chain: Vec<Pem>,
    key: Pem,
}

impl Identity {
    fn new(chain: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        Self { chain: vec![chain.into()], key: key.into() }
    }

    fn read(&self) -> io::Result<(String, String)> {
        let mut chain = String::new();
        for pem in &self.chain {
            chain.push_str(&pem.read()?);
            chain.push('\n');
        }
        Ok((chain, self.key.read()?))
    }

    /// Where it comes from, for errors.
    fn name(&self) -> String {
        format!("{} with the key in {}", self.chain[0].name(), self.key.name())
    }
}

/// What a server needs for TLS: its certificate, and how it meets clients (Twisted's `CertificateOptions`).
/// [`build`](Self::build) makes [`TlsServerOptions`] of it.
///
/// A *chain* is the certificate itself followed by those that vouch for it, without the authority's own, all in PEM. A
/// key in PEM is PKCS #8 (`PRIVATE KEY`), PKCS #1 (`RSA PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`), not encrypted.
#[derive(Clone)]
#[must_use = "call build"]
pub struct CertificateOptions {
    identity: Identity,
    by_name: Vec<(String, Identity)>,
    client_roots: Option<(Pem, ClientAuth)>,
    client_revocations: Option<Pem>,
    alpn: Vec<String>,
    min_version: TlsVersion,
    timeout: Option<Duration>,
}

impl CertificateOptions {
    /// With the certificate and the key as text.
    pub fn from_pem(chain: &str, key: &str) -> Self {
        Self::of(Identity::new(chain, key))
    }

    /// With the certificate and the key in files, which may be one and the same. They are read by
    /// [`build`](Self::build), and again by [`TlsServerOptions::reload`].
    pub fn from_files(chain: &Path, key: &Path) -> Self {
        Self::of(Identity::new(chain, key))
    }

    fn of(identity: Identity) -> Self {
        Self {
            identity,
            by_name: Vec::new(),
            client_roots: None,
            client_revocations: None,
            alpn: Vec::new(),
            min_version: TlsVersion::default(),
            timeout: Some(HANDSHAKE_TIMEOUT),
        }
    }

    /// More certificates of the chain, in another file (Twisted's `extraCertChain`).
    pub fn extra_cert_chain_file(mut self, path: &Path) -> Self {
        self.identity.chain.push(path.into());
        self
    }

    /// Another certificate for clients that ask for the host `name` (SNI); `*.example.org` stands for any one label.
    /// Clients that ask for a name which is not here, or for none, see the first one.
    pub fn for_name(mut self, name: &str, chain: &str, key: &str) -> Self {
        self.by_name.push((name.to_owned(), Identity::new(chain, key)));
        self
    }

    /// As [`for_name`](Self::for_name), from files.
    pub fn for_name_files(mut self, name: &str, chain: &Path, key: &Path) -> Self {
        self.by_name.push((name.to_owned(), Identity::new(chain, key)));
        self
    }

    /// Asks clients for a certificate that one of these authorities (PEM) vouches for: mutual TLS.
    pub fn client_roots(mut self, roots: &str, auth: ClientAuth) -> Self {
        self.client_roots = Some((roots.into(), auth));
        self
    }

    /// As [`client_roots`](Self::client_roots), from a file.
    pub fn client_roots_file(mut self, roots: &Path, auth: ClientAuth) -> Self {
        self.client_roots = Some((roots.into(), auth));
        self
    }

    /// What those authorities have revoked, in a file of lists in PEM (CRLs): each authority of a client's chain must have
    /// one there that is not out of date, and clients whose certificate stands in one are refused.
    pub fn client_revocations_file(mut self, lists: &Path) -> Self {
        self.client_revocations = Some(lists.into());
        self
    }

    /// The protocols that are spoken inside, the preferred one first (ALPN; Twisted's `acceptableProtocols`). A client
    /// that offers others only is refused; one that offers none is not.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// The oldest version that is spoken: 1.2 if nothing is said.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// How long a handshake may take, 10 s if nothing is said; `None` for as long as it likes. A client that connects and
    /// says nothing would otherwise stay for ever.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The options. Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read; `InvalidInput` when what is in it is no certificate or key, or they do not belong
    /// together. The text names the file.
    pub fn build(self) -> io::Result<TlsServerOptions> {
        let current = self.current()?;
        Ok(TlsServerOptions(Rc::new(Served {
            current: RefCell::new(current),
            source: RefCell::new(Some(self)),
        })))
    }

    fn current(&self) -> io::Result<Current> {
        let (chain, key) = self.identity.read()?;
        let mut builder = Acceptor::builder().identity_pem(&chain, &key);
        for (name, identity) in &self.by_name {
            let (chain, key) = identity.read()?;
            builder = builder.identity_pem_for(name, &chain, &key);
        }
        if let Some((roots, auth)) = &self.client_roots {
            builder = builder.client_roots_pem(&roots.read()?, *auth);
        }
        if let Some(lists) = &self.client_revocations {
            builder = builder.client_revocations_pem(&lists.read()?);
        }
        let names: Vec<&str> = self.alpn.iter().map(String::as_str).collect();
        let acceptor = builder.alpn(&names).min_version(self.min_version).build();
        let acceptor = acceptor.map_err(|error| {
            let names: Vec<_> = self.by_name.iter().map(|(_, identity)| identity.name()).collect();
            let all = [vec![self.identity.name()], names].concat().join(", ");
            io::Error::new(error.kind(), format!("TLS cannot use {all}: {error}"))
        })?;
        Ok(Current { config: note_names(acceptor.config()), timeout: self.timeout })
    }
}

/// How long a handshake may take when nothing else is said.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl fmt::Debug for CertificateOptions {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateOptions")
            .field("identity", &self.identity.name())
            .finish_non_exhaustive()
    }
}

/// A server's settings. Clones are the same settings: what [`reload`](Self::reload) and [`replace`](Self::replace) do holds
/// for all of them, and for every connection that comes from then on. Those that stand are not touched.
#[derive(Clone)]
pub struct TlsServerOptions(Rc<Served>);

struct Served {
    current: RefCell<Current>,
    /// What `reload` makes it from.
    source: RefCell<Option<CertificateOptions>>,
}

#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    timeout: Option<Duration>,
}

impl TlsServerOptions {
    /// With rustls' own settings, for what [`CertificateOptions`] has not.
    pub fn from_rustls(config: &ServerConfig) -> Self {
        let current = Current { config: note_names(config), timeout: Some(HANDSHAKE_TIMEOUT) };
        Self(Rc::new(Served { current: RefCell::new(current), source: RefCell::new(None) }))
    }

    /// Reads the files again: after certificates have been renewed. Sessions of before are not resumed. If anything is
    /// wrong with the files, all stays as it was.
    ///
    /// # Errors
    /// As [`CertificateOptions::build`]; `Unsupported` when the settings are rustls' own.
    pub fn reload(&self) -> io::Result<()> {
        let source = self.0.source.borrow();
        let source = source.as_ref().ok_or_else(|| {
            let text =
                "settings that were made for rustls have no files to be read again: use replace";
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        self.0.current.replace(source.current()?);
        Ok(())
    }

    /// Takes over the settings that `new` has now.
    pub fn replace(&self, new: &Self) {
        let (current, source) = (new.0.current.borrow().clone(), new.0.source.borrow().clone());
        self.0.current.replace(current);
        self.0.source.replace(source);
    }
}

impl fmt::Debug for TlsServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsServerOptions").field(&self.0.source.borrow()).finish()
    }
}

/// What a client needs for TLS with the server `host`, a name or an address, which the server's certificate must be made
/// out to (Twisted's `optionsForClientTLS`). Unless other authorities are named, those that the system trusts are.
/// [`build`](ClientTlsBuilder::build) makes [`TlsClientOptions`] of it.
///
/// There is no way to leave the check of the certificate out: trust a certificate signed by itself by naming it as
/// [`roots`](ClientTlsBuilder::roots).
pub fn options_for_client_tls(host: &str) -> ClientTlsBuilder {
    ClientTlsBuilder {
        host: host.to_owned(),
        roots: Vec::new(),
        system: false,
        identity: None,
        alpn: Vec::new(),
        min_version: TlsVersion::default(),
        timeout: Some(HANDSHAKE_TIMEOUT),
    }
}

/// Settings of [`TlsClientOptions`].
#[derive(Clone)]
#[must_use = "call build"]
pub struct ClientTlsBuilder {
    host: String,
    roots: Vec<Pem>,
    system: bool,
    identity: Option<Identity>,
    alpn: Vec<String>,
    min_version: TlsVersion,
    timeout: Option<Duration>,
}

impl ClientTlsBuilder {
    /// Trusts servers that one of these authorities (PEM) vouches for, instead of those that the system trusts.
    pub fn roots(mut self, roots: &str) -> Self {
        self.roots.push(roots.into());
        self
    }

    /// As [`roots`](Self::roots), from a file.
    pub fn roots_file(mut self, roots: &Path) -> Self {
        self.roots.push(roots.into());
        self
    }

    /// As [`roots`](Self::roots), from all files of a folder that end in `.pem`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn roots_folder(mut self, folder: &Path) -> io::Result<Self> {
        let read = || -> io::Result<Vec<PathBuf>> {
            let paths: io::Result<Vec<_>> =
                std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
            Ok(paths?
                .into_iter()
                .filter(|path| path.extension().is_some_and(|e| e == "pem"))
                .collect())
        };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot read {}: {error}", folder.display()))
        };
        let mut paths = read().map_err(named)?;
        if paths.is_empty() {
            let text = format!("{} has no file that ends in .pem", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        paths.sort();
        self.roots.extend(paths.into_iter().map(Pem::File));
        Ok(self)
    }

    /// Trusts those that the system trusts, besides the authorities named.
    pub fn system_roots(mut self) -> Self {
        self.system = true;
        self
    }

    /// The client's own certificate (a chain) and key, in PEM, for servers that ask for one.
    pub fn certificate(mut self, chain: &str, key: &str) -> Self {
        self.identity = Some(Identity::new(chain, key));
        self
    }

    /// As [`certificate`](Self::certificate), from files.
    pub fn certificate_files(mut self, chain: &Path, key: &Path) -> Self {
        self.identity = Some(Identity::new(chain, key));
        self
    }

    /// The protocols that may be spoken inside, the preferred one first (ALPN; Twisted's `acceptableProtocols`).
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// The oldest version that is spoken: 1.2 if nothing is said.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// How long a handshake may take, 10 s if nothing is said; `None` for as long as it likes.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The options. Reads the files, also the system's if they are wanted. Make them once, not for each connection: so
    /// connections can resume the sessions of earlier ones.
    ///
    /// # Errors
    /// When a file cannot be read; `InvalidInput` when what is in it is no certificate or key, they do not belong
    /// together, or the host is neither a name nor an address; `NotFound` when the system trusts nobody.
    pub fn build(self) -> io::Result<TlsClientOptions> {
        let mut builder = Connector::builder();
        for roots in &self.roots {
            builder = builder.roots_pem(&roots.read()?);
        }
        if self.system {
            builder = builder.system_roots();
        }
        if let Some(identity) = &self.identity {
            let (chain, key) = identity.read()?;
            builder = builder.identity_pem(&chain, &key);
        }
        let names: Vec<&str> = self.alpn.iter().map(String::as_str).collect();
        let builder = builder.alpn(&names).min_version(self.min_version);
        let connector = builder.handshake_timeout(self.timeout).build();
        let connector = connector.map_err(|error| {
            let roots = self.roots.iter().map(Pem::name);
            let all: Vec<_> = roots.chain(self.identity.as_ref().map(Identity::name)).collect();
            io::Error::new(error.kind(), format!("TLS cannot use {}: {error}", all.join(", ")))
        })?;
        TlsClientOptions::from_connector(&self.host, connector)
    }
}

impl fmt::Debug for ClientTlsBuilder {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTlsBuilder").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A client's settings, and the host that it wants to meet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsClientOptions {
    connector: Connector,
    host: ServerName<'static>,
}

impl TlsClientOptions {
    /// With the settings of the hub's TLS, which may be rustls' own.
    ///
    /// # Errors
    /// `InvalidInput` when `host` is neither a name nor an address.
    pub fn from_connector(host: &str, connector: Connector) -> io::Result<Self> {
        Ok(Self { connector, host: server_name(host)? })
    }

    /// The same for another host.
    ///
    /// # Errors
    /// `InvalidInput` when `host` is neither a name nor an address.
    pub fn for_host(&self, host: &str) -> io::Result<Self> {
        Ok(Self { connector: self.connector.clone(), host: server_name(host)? })
    }
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    // An address may come in brackets, as in a URL.
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|error| {
        let text = format!("{host:?} is neither the name of a host nor an address: {error}");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Either side's settings: [`TlsServerOptions`] or [`TlsClientOptions`].
pub trait TlsOptions: sealed::Side {}

impl TlsOptions for TlsServerOptions {}
impl TlsOptions for TlsClientOptions {}

pub(super) mod sealed {
    use super::{Duration, TlsLayer, io};

    pub trait Side: Clone + 'static {
        #[doc(hidden)]
        fn start(&self) -> io::Result<Start>;
    }

    #[doc(hidden)]
    #[allow(missing_debug_implementations)]
    pub struct Start {
        pub(in crate::tls) layer: TlsLayer,
        pub(in crate::tls) timeout: Option<Duration>,
    }
}

use sealed::Start;

impl sealed::Side for TlsServerOptions {
    fn start(&self) -> io::Result<Start> {
        let Current { config, timeout } = self.0.current.borrow().clone();
        Ok(Start { layer: TlsLayer::server(config).map_err(explain)?, timeout })
    }
}

impl sealed::Side for TlsClientOptions {
    fn start(&self) -> io::Result<Start> {
        let layer = TlsLayer::client(self.connector.config().clone(), self.host.clone());
        Ok(Start { layer: layer.map_err(explain)?, timeout: self.connector.handshake_timeout() })
    }
}
