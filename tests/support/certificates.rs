//! Certificates for the tests: an authority, and what it vouches for.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};

/// Whom the test trusts.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for someone called `name` who has these other names, and its key.
    pub(crate) fn certify(&self, name: &str, others: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let others: Vec<String> = others.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// The same in the files `FILE.pem` and `FILE.key`, and in one: `FILE.both.pem`.
    pub(crate) fn certify_in(&self, folder: &Path, file: &str, name: &str, others: &[&str]) {
        let (certificate, key) = self.certify(name, others);
        fs::write(folder.join(format!("{file}.both.pem")), certificate.clone() + &key).unwrap();
        fs::write(folder.join(format!("{file}.key")), key).unwrap();
        fs::write(folder.join(format!("{file}.pem")), certificate).unwrap();
    }

    /// What a server of a test needs: `ca.pem` and `ca.key`, those of a `server` on this machine, and those of a
    /// `client` called guest.
    pub(crate) fn certify_all_in(folder: &Path) -> Self {
        let authority = Self::new("an authority");
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        fs::write(folder.join("ca.key"), authority.0.key().serialize_pem()).unwrap();
        authority.certify_in(folder, "server", "localhost", &["localhost", "127.0.0.1"]);
        authority.certify_in(folder, "client", "guest", &[]);
        authority
    }
}
