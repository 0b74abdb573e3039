//! What is told of an encrypted connection.

use warren_amqp::FieldTable;
use warren_reactor::Transport;

use crate::auth::CertLogin;

/// Of a connection that is not encrypted, all are empty.
#[derive(Default)]
pub(super) struct Tls {
    pub(super) encrypted: bool,
    protocol: String,
    key_exchange: String,
    cipher: String,
    hash: &'static str,
    peer_subject: String,
}

impl Tls {
    pub(super) fn of(transport: &Transport) -> Self {
        let Some(info) = transport.tls_info() else { return Self::default() };
        let peer = info.peer_certificates.first();
        let (key_exchange, cipher) = suite(&format!("{:?}", info.cipher_suite));
        Self {
            encrypted: true,
            protocol: protocol(&format!("{:?}", info.version)),
            key_exchange,
            cipher,
            // Nothing else is spoken here.
            hash: "aead",
            peer_subject: peer
                .and_then(|certificate| CertLogin::DistinguishedName.user(certificate))
                .unwrap_or_default(),
        }
    }

    /// In RabbitMQ's order, with the mechanism between them.
    pub(super) fn headers(&self, headers: FieldTable, mechanism: &str) -> FieldTable {
        headers
            .with("ssl_hash", self.hash)
            .with("ssl_cipher", self.cipher.as_str())
            .with("ssl_key_exchange", self.key_exchange.as_str())
            .with("ssl_protocol", self.protocol.as_str())
            .with("auth_mechanism", mechanism)
            .with("peer_cert_validity", "")
            .with("peer_cert_issuer", "")
            .with("peer_cert_subject", self.peer_subject.as_str())
            .with("ssl", self.encrypted)
    }

    /// Those of a login, where there are any.
    pub(super) fn of_login(&self, mut headers: FieldTable) -> FieldTable {
        if self.encrypted {
            if !self.peer_subject.is_empty() {
                headers.push("peer_cert_subject", self.peer_subject.as_str());
            }
            headers.push("ssl_cipher", self.cipher.as_str());
            headers.push("ssl_protocol", self.protocol.as_str());
        }
        headers.with("ssl", self.encrypted)
    }
}

/// `TLSv1_3` as Erlang has it.
fn protocol(version: &str) -> String {
    version.to_ascii_lowercase().replace('_', ".")
}

/// Key exchange and cipher of a suite, as Erlang has them.
fn suite(name: &str) -> (String, String) {
    let name = name.to_ascii_lowercase();
    // In TLS 1.3 a suite says nothing of the key exchange.
    let (key_exchange, cipher) = match name.strip_prefix("tls13_") {
        Some(cipher) => ("any", cipher),
        None => name.trim_start_matches("tls_").split_once("_with_").unwrap_or_default(),
    };
    let cipher = cipher.rsplit_once("_sha").map_or(cipher, |(cipher, _)| cipher);
    (key_exchange.to_owned(), cipher.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{protocol, suite};

    #[test]
    fn names_are_erlangs() {
        assert_eq!(protocol("TLSv1_2"), "tlsv1.2");
        for (name, key_exchange, cipher) in [
            ("TLS13_AES_256_GCM_SHA384", "any", "aes_256_gcm"),
            ("TLS13_CHACHA20_POLY1305_SHA256", "any", "chacha20_poly1305"),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ecdhe_rsa", "aes_128_gcm"),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ecdhe_ecdsa", "chacha20_poly1305"),
        ] {
            assert_eq!(suite(name), (key_exchange.into(), cipher.into()), "{name}");
        }
    }
}
