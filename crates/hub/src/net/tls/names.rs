//! Which certificate a server shows: by the name that the client asks for (SNI, RFC 6066 §3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by name, and the one for all other names.
#[derive(Debug)]
pub(super) struct ByName {
    /// In small letters. `*.example.org` is kept as `.example.org`, and stands for one label (RFC 6125 §6.4.3).
    pub(super) names: HashMap<String, Arc<CertifiedKey>>,
    pub(super) other: Arc<CertifiedKey>,
}

impl ByName {
    /// The key that `name` is kept under.
    pub(super) fn key(name: &str) -> String {
        let name = name.strip_prefix('*').unwrap_or(name);
        name.trim_end_matches('.').to_ascii_lowercase()
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = Self::key(name);
        let wildcard = || name.find('.').and_then(|dot| self.names.get(&name[dot..]));
        self.names.get(&name).or_else(wildcard).unwrap_or(&self.other)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().map_or(&self.other, |name| self.find(name));
        Some(found.clone())
    }
}
