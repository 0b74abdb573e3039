//! Certificates for the tests: an authority, and what it vouches for.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    date_time_ymd,
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
        self.certify_numbered(None, name, others)
    }

    /// The same with a number, by which it can be revoked.
    pub(crate) fn certify_numbered(
        &self,
        number: Option<u64>,
        name: &str,
        others: &[&str],
    ) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let others: Vec<String> = others.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = number.map(SerialNumber::from);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// The list of what it has revoked, in PEM. It holds from the year 2020 on, and up to `until`.
    #[allow(dead_code, reason = "not every test revokes")]
    pub(crate) fn revoke(&self, numbers: &[u64], until: i32) -> String {
        let since = date_time_ymd(2020, 1, 1);
        let revoked_certs = numbers.iter().map(|&number| RevokedCertParams {
            serial_number: number.into(),
            revocation_time: since,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: since,
            next_update: date_time_ymd(until, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
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
