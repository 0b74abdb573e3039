//! Settings of both sides.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::super::Duplex;
use super::TlsStream;
use super::error::unusable;
use super::names::ByName;
use super::unverified::Unverified;

/// How long a handshake may take when nothing else is said. A peer that says nothing must not keep a fiber for ever.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// A chain of certificates and the key of the first, as text.
#[derive(Clone)]
struct Identity {
    chain: String,
    key: String,
}

type Parsed = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Identity {
    fn parse(&self) -> io::Result<Parsed> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let key = key.map_err(|error| invalid(format!("no private key: {error}")))?;
        Ok((certificates(&self.chain)?, key))
    }

    fn certified(&self) -> io::Result<Arc<CertifiedKey>> {
        let (chain, key) = self.parse()?;
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider()).map_err(unusable)?))
    }
}

fn certificates(pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates =
        certificates.map_err(|error| invalid(format!("a broken certificate: {error}")))?;
    if certificates.is_empty() {
        return Err(invalid("there is no certificate in what was given as certificates"));
    }
    Ok(certificates)
}

fn add_roots(roots: &mut RootCertStore, pem: &str) -> io::Result<()> {
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(())
}

/// Lists of revoked certificates, of which there must be some.
fn revocations(pem: &str) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let lists: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).collect();
    match lists {
        Ok(lists) if lists.is_empty() => Err(invalid("there is no list of revoked certificates")),
        Ok(lists) => Ok(lists),
        Err(error) => Err(invalid(format!("this is no list of revoked certificates: {error}"))),
    }
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is looked at when there is one, and must be good then.
    #[default]
    Optional,
    /// Without one, the handshake fails.
    Required,
}

/// Versions of TLS. Older ones are broken, and not spoken at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl TlsVersion {
    /// This one and those after it.
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => &NEWEST,
        }
    }
}

/// The server's side: makes the handshake with clients. Cheap to clone, and may go to other threads.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    timeout: Option<Duration>,
}

impl Acceptor {
    /// With rustls' own settings, for what [`builder`](Self::builder) has not: several certificates by host, tickets,
    /// ciphers.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { config, timeout: Some(HANDSHAKE_TIMEOUT) }
    }

    /// Settings from certificates as text. At least [`identity_pem`](AcceptorBuilder::identity_pem) is needed.
    pub fn builder() -> AcceptorBuilder {
        AcceptorBuilder {
            identity: None,
            by_name: Vec::new(),
            client_roots: None,
            client_revocations: None,
            alpn: Vec::new(),
            min_version: TlsVersion::default(),
            timeout: Some(HANDSHAKE_TIMEOUT),
        }
    }

    /// rustls' settings.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// How long a handshake may take; `None` for as long as it likes.
    pub fn handshake_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Makes the handshake with a client.
    ///
    /// # Suspends
    /// Until it is made.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidData` when the client speaks no TLS, or nothing that both can, or its certificate is not
    /// trusted; what the stream says.
    pub fn accept<S: Duplex>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let session = ServerConnection::new(self.config.clone()).map_err(unusable)?;
        TlsStream::handshake(stream, Connection::Server(session), self.timeout)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Settings of an [`Acceptor`].
#[derive(Clone)]
#[must_use = "call build"]
pub struct AcceptorBuilder {
    identity: Option<Identity>,
    by_name: Vec<(String, Identity)>,
    client_roots: Option<(String, ClientAuth)>,
    client_revocations: Option<String>,
    alpn: Vec<Vec<u8>>,
    min_version: TlsVersion,
    timeout: Option<Duration>,
}

impl AcceptorBuilder {
    /// The server's certificate, followed by those that vouch for it, and its private key, in PEM.
    pub fn identity_pem(mut self, chain: &str, key: &str) -> Self {
        self.identity = Some(Identity { chain: chain.into(), key: key.into() });
        self
    }

    /// Another certificate and key, for clients that ask for the host `name` (SNI). `*.example.org` stands for any one
    /// label. Clients that ask for a name which is not here, or for none, see that of
    /// [`identity_pem`](Self::identity_pem).
    pub fn identity_pem_for(mut self, name: &str, chain: &str, key: &str) -> Self {
        let identity = Identity { chain: chain.into(), key: key.into() };
        self.by_name.push((name.into(), identity));
        self
    }

    /// The oldest version that is spoken: 1.2 if nothing is said.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// Asks clients for a certificate that one of these (PEM) vouches for.
    pub fn client_roots_pem(mut self, roots: &str, auth: ClientAuth) -> Self {
        self.client_roots = Some((roots.into(), auth));
        self
    }

    /// What the authorities of clients have revoked (CRLs in PEM, RFC 5280 §5): each authority of a client's chain must have
    /// a list here that is not out of date, and what stands in it is refused. Of no effect without
    /// [`client_roots_pem`](Self::client_roots_pem).
    pub fn client_revocations_pem(mut self, lists: &str) -> Self {
        self.client_revocations = Some(lists.into());
        self
    }

    /// The protocols that are spoken inside, the preferred one first (ALPN). A client that offers others only is
    /// refused; one that offers none is not.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = protocols(names);
        self
    }

    /// How long a handshake may take, 10 s if nothing is said; `None` for as long as it likes.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The acceptor.
    ///
    /// # Errors
    /// `InvalidInput` when the certificates or the key cannot be read, or do not belong together.
    pub fn build(self) -> io::Result<Acceptor> {
        let identity = self.identity.ok_or_else(|| invalid("a server needs a certificate"))?;
        let mut names = HashMap::new();
        for (name, identity) in &self.by_name {
            names.insert(ByName::key(name), identity.certified()?);
        }
        let shown = ByName { names, other: identity.certified()? };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.min_version.and_later())
            .map_err(unusable)?;
        let builder = match &self.client_roots {
            None => builder.with_no_client_auth(),
            Some((pem, auth)) => {
                let mut roots = RootCertStore::empty();
                add_roots(&mut roots, pem)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = match &self.client_revocations {
                    None => verifier,
                    Some(lists) => {
                        verifier.with_crls(revocations(lists)?).enforce_revocation_expiration()
                    }
                };
                let verifier = match auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    ClientAuth::Required => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(invalid)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = self.alpn;
        // Clients keep what a resumption needs (RFC 5077, RFC 8446 §4.6.1), sealed with keys that change: so there is no
        // limit to how many come back, and no memory spent on those who do not.
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        Ok(Acceptor { config: Arc::new(config), timeout: self.timeout })
    }
}

impl fmt::Debug for AcceptorBuilder {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptorBuilder").finish_non_exhaustive()
    }
}

/// The client's side: makes the handshake with servers. Cheap to clone, and may go to other threads.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    timeout: Option<Duration>,
}

impl Connector {
    /// With rustls' own settings, for what [`builder`](Self::builder) has not.
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, timeout: Some(HANDSHAKE_TIMEOUT) }
    }

    /// Settings from certificates as text. Without any roots named, those of the system are trusted.
    pub fn builder() -> ConnectorBuilder {
        ConnectorBuilder {
            roots: Vec::new(),
            system: false,
            verify: true,
            send_name: true,
            identity: None,
            alpn: Vec::new(),
            min_version: TlsVersion::default(),
            timeout: Some(HANDSHAKE_TIMEOUT),
        }
    }

    /// rustls' settings.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// How long a handshake may take; `None` for as long as it likes.
    pub fn handshake_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Makes the handshake with the server `host`, a name or an address, which its certificate must be made out to.
    ///
    /// # Suspends
    /// Until it is made.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidInput` when `host` is neither a name nor an address; `InvalidData` when the server speaks no
    /// TLS, or nothing that both can, or its certificate is not trusted; what the stream says.
    pub fn connect<S: Duplex>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(host.to_owned()).map_err(invalid)?;
        let session = ClientConnection::new(self.config.clone(), name).map_err(unusable)?;
        TlsStream::handshake(stream, Connection::Client(session), self.timeout)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Settings of a [`Connector`].
#[derive(Clone)]
#[must_use = "call build"]
pub struct ConnectorBuilder {
    roots: Vec<String>,
    system: bool,
    verify: bool,
    send_name: bool,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    min_version: TlsVersion,
    timeout: Option<Duration>,
}

impl ConnectorBuilder {
    /// Trusts servers that one of these certificates (PEM) vouches for.
    pub fn roots_pem(mut self, roots: &str) -> Self {
        self.roots.push(roots.into());
        self
    }

    /// Trusts what the system trusts, besides the roots named.
    pub fn system_roots(mut self) -> Self {
        self.system = true;
        self
    }

    /// Whether the server's certificate is verified, as it is if nothing is said. Without, the connection is encrypted,
    /// but with whom is not known: whoever sits in between may read all of it.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Whether the server is told which host it is taken for (SNI, RFC 6066 §3), as it is if nothing is said.
    pub fn send_server_name(mut self, send: bool) -> Self {
        self.send_name = send;
        self
    }

    /// The client's certificate, followed by those that vouch for it, and its private key, in PEM. For servers that ask
    /// for one.
    pub fn identity_pem(mut self, chain: &str, key: &str) -> Self {
        self.identity = Some(Identity { chain: chain.into(), key: key.into() });
        self
    }

    /// The protocols that may be spoken inside, the preferred one first (ALPN).
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = protocols(names);
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

    /// The connector. Reads the system's certificates if they are wanted, from files.
    ///
    /// # Errors
    /// `InvalidInput` when the certificates or the key cannot be read, or do not belong together; `NotFound` when the
    /// system's are wanted and there are none.
    pub fn build(self) -> io::Result<Connector> {
        let mut roots = RootCertStore::empty();
        for pem in &self.roots {
            add_roots(&mut roots, pem)?;
        }
        if self.verify && (self.system || self.roots.is_empty()) {
            let found = rustls_native_certs::load_native_certs();
            // Some of a system's certificates may be too old to be understood.
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("the system has no certificates to trust: {:?}", found.errors),
                ));
            }
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.min_version.and_later())
            .map_err(unusable)?;
        let builder = match self.verify {
            true => builder.with_root_certificates(roots),
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider()))),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.parse()?;
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
        };
        config.alpn_protocols = self.alpn;
        config.enable_sni = self.send_name;
        Ok(Connector { config: Arc::new(config), timeout: self.timeout })
    }
}

impl fmt::Debug for ConnectorBuilder {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorBuilder").finish_non_exhaustive()
    }
}
