//! A certificate for localhost, and who trusts it.

use std::sync::LazyLock;

use warren_reactor::tls::{
    CertificateOptions, TlsClientOptions, TlsServerOptions, options_for_client_tls,
};

/// The certificate and its key.
static CERTIFICATE: LazyLock<(String, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
});

pub(super) fn server() -> TlsServerOptions {
    let (certificate, key) = &*CERTIFICATE;
    CertificateOptions::from_pem(certificate, key).build().unwrap()
}

pub(super) fn client() -> TlsClientOptions {
    options_for_client_tls("localhost").roots(&CERTIFICATE.0).build().unwrap()
}
