//! Certificates, and two ends in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use warren_hub::net::tls::Connector;
use warren_reactor::testing::TestConnection;
use warren_reactor::tls::rustls::pki_types::CertificateDer;
use warren_reactor::tls::rustls::pki_types::pem::PemObject;
use warren_reactor::tls::{
    CertificateOptions, TlsClientOptions, TlsFactory, TlsOptions, TlsServerOptions,
    options_for_client_tls, rustls,
};
use warren_reactor::{Factory, PeerAddr, Protocol, Reason, Transport};

/// An authority, and a certificate and key that it vouches for.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) root: String,
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// An identity of an authority of its own.
pub(crate) fn identity(name: &str) -> Identity {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // No two authorities have the same name.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut made = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    made.distinguished_name.push(DnType::CommonName, name);
    let certificate = made.signed_by(&key, &authority).unwrap();
    Identity { root: authority.pem(), chain: certificate.pem(), key: key.serialize_pem() }
}

pub(crate) fn certificate(identity: &Identity) -> CertificateOptions {
    CertificateOptions::from_pem(&identity.chain, &identity.key)
}

/// The options of a server called `localhost`, and of a client that trusts it.
pub(crate) fn options() -> (TlsServerOptions, TlsClientOptions) {
    let identity = identity("localhost");
    let client = options_for_client_tls("localhost").roots(&identity.root).build().unwrap();
    (certificate(&identity).build().unwrap(), client)
}

/// As [`options`], where the client speaks TLS 1.2 only.
pub(crate) fn options_12() -> (TlsServerOptions, TlsClientOptions) {
    let identity = identity("localhost");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.root.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = TlsClientOptions::from_connector("localhost", Connector::new(Arc::new(config)));
    (certificate(&identity).build().unwrap(), client.unwrap())
}

/// What a protocol has heard.
#[derive(Clone, Default)]
pub(crate) struct Heard(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    data: Vec<u8>,
    events: Vec<String>,
    transport: Option<Transport>,
}

impl Heard {
    pub(crate) fn data(&self) -> Vec<u8> {
        self.0.borrow().data.clone()
    }

    /// Everything but data.
    pub(crate) fn events(&self) -> Vec<String> {
        self.0.borrow().events.clone()
    }

    pub(crate) fn last(&self) -> String {
        self.0.borrow().events.last().cloned().unwrap_or_default()
    }

    pub(crate) fn transport(&self) -> Transport {
        self.0.borrow().transport.clone().unwrap()
    }

    pub(crate) fn has(&self, event: &str) -> bool {
        self.0.borrow().events.iter().any(|other| other == event)
    }
}

/// Writes something at once, and notes what it hears.
pub(crate) struct Notes {
    pub(crate) heard: Heard,
    pub(crate) writes: Vec<u8>,
    /// Stays when the peer has ended its output.
    pub(crate) stays: bool,
    pub(crate) echoes: bool,
}

impl Notes {
    pub(crate) fn new(heard: &Heard) -> Self {
        Self { heard: heard.clone(), writes: Vec::new(), stays: false, echoes: false }
    }

    fn note(&self, event: impl Into<String>) {
        self.heard.0.borrow_mut().events.push(event.into());
    }
}

impl Protocol for Notes {
    fn connection_made(&mut self, transport: &Transport) {
        self.heard.0.borrow_mut().transport = Some(transport.clone());
        transport.write(&self.writes);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.heard.0.borrow_mut().data.extend_from_slice(data);
        if self.echoes {
            transport.write(data);
        }
    }

    fn handshake_completed(&mut self, _transport: &Transport) {
        self.note("handshake");
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.note("read lost");
        if !self.stays {
            transport.lose_connection();
        }
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        self.note("write lost");
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.note(match reason {
            Reason::Error(error) => format!("{:?}: {error}", error.kind()),
            other => other.to_string(),
        });
    }
}

/// `protocol` in memory, with TLS from the first byte.
pub(crate) fn secured(options: &impl TlsOptions, protocol: Notes) -> TestConnection {
    let mut protocol = Some(Box::new(protocol) as Box<dyn Protocol>);
    let build = move |_: &PeerAddr| protocol.take();
    let mut factory = TlsFactory::new(options, Box::new(build));
    TestConnection::new(factory.build_protocol(&PeerAddr::Memory).unwrap())
}

/// Both ends of a connection, and what they have heard.
pub(crate) struct Ends {
    pub(crate) client: TestConnection,
    pub(crate) server: TestConnection,
    pub(crate) at_client: Heard,
    pub(crate) at_server: Heard,
}

impl Ends {
    pub(crate) fn new(server: &impl TlsOptions, client: &impl TlsOptions) -> Self {
        Self::with(server, client, |_| {}, |_| {})
    }

    /// Ends whose protocols have been changed before they started.
    pub(crate) fn with(
        server: &impl TlsOptions,
        client: &impl TlsOptions,
        change_server: impl FnOnce(&mut Notes),
        change_client: impl FnOnce(&mut Notes),
    ) -> Self {
        let (at_client, at_server) = (Heard::default(), Heard::default());
        let (mut of_client, mut of_server) = (Notes::new(&at_client), Notes::new(&at_server));
        change_client(&mut of_client);
        change_server(&mut of_server);
        let (client, server) = (secured(client, of_client), secured(server, of_server));
        Self { client, server, at_client, at_server }
    }

    /// Carries bytes until none are left. Gives how many passed: to the server, and to the client.
    pub(crate) fn pump(&mut self) -> (usize, usize) {
        let mut passed = (0, 0);
        loop {
            let (up, down) = (self.client.take_output(), self.server.take_output());
            if up.is_empty() && down.is_empty() {
                return passed;
            }
            passed.0 += up.len();
            passed.1 += down.len();
            self.server.feed(&up);
            self.client.feed(&down);
        }
    }
}
