//! What the options change, and what errors say.

use warren_reactor::tls::rustls::ProtocolVersion;
use warren_reactor::tls::{
    CertificateOptions, ClientAuth, TlsServerOptions, TlsVersion, options_for_client_tls,
};

use crate::support::{Ends, certificate, identity, options, options_12};

#[track_caller]
fn says(event: &str, kind: &str, text: &str) {
    assert!(event.starts_with(kind) && event.contains(text), "{event}");
}

#[test]
fn the_client_insists_on_the_authority_and_the_name() {
    let (one, other) = (identity("localhost"), identity("localhost"));
    let server = certificate(&one).build().unwrap();
    let stranger = options_for_client_tls("localhost").roots(&other.root).build().unwrap();
    let mut ends = Ends::new(&server, &stranger);
    ends.pump();
    assert!(ends.client.is_lost() && ends.server.is_lost());
    says(&ends.at_client.last(), "InvalidData", "trust its authority if it is your own");
    says(&ends.at_server.last(), "InvalidData", "does not trust the authority of our certificate");

    let elsewhere = options_for_client_tls("example.org").roots(&one.root).build().unwrap();
    let mut ends = Ends::new(&server, &elsewhere);
    ends.pump();
    says(&ends.at_client.last(), "InvalidData", "made out to another name");
    // Both names are told.
    says(&ends.at_client.last(), "InvalidData", "example.org");
    says(&ends.at_client.last(), "InvalidData", "localhost");
    assert_eq!(ends.at_client.events().len(), 1, "no handshake was reported");

    let same = elsewhere.for_host("localhost").unwrap();
    let mut ends = Ends::new(&server, &same);
    ends.pump();
    assert_eq!(ends.at_client.events(), ["handshake"]);
    assert!(options_for_client_tls("no host").roots(&one.root).build().is_err());
}

#[test]
fn clients_show_certificates_too() {
    let (of_server, of_client) = (identity("localhost"), identity("a client"));
    let with = |auth| certificate(&of_server).client_roots(&of_client.root, auth).build().unwrap();
    let client = || options_for_client_tls("localhost").roots(&of_server.root);
    let known = client().certificate(&of_client.chain, &of_client.key).build().unwrap();
    let mut ends = Ends::new(&with(ClientAuth::Required), &known);
    ends.pump();
    let info = ends.server.transport().tls_info().unwrap();
    assert_eq!(info.peer_certificates.len(), 1);

    let unknown = client().build().unwrap();
    let mut ends = Ends::new(&with(ClientAuth::Required), &unknown);
    ends.pump();
    says(&ends.at_server.last(), "InvalidData", "the peer must show a certificate and has none");
    says(&ends.at_client.last(), "InvalidData", "the peer wants a certificate of ours");

    let mut ends = Ends::new(&with(ClientAuth::Optional), &unknown);
    ends.pump();
    assert_eq!(ends.at_server.events(), ["handshake"]);
    // One that is shown must be good even so.
    let stranger = identity("a stranger");
    let stranger = client().certificate(&stranger.chain, &stranger.key).build().unwrap();
    let mut ends = Ends::new(&with(ClientAuth::Optional), &stranger);
    ends.pump();
    says(&ends.at_server.last(), "InvalidData", "no trusted authority");
}

#[test]
fn the_protocol_inside_is_agreed_upon() {
    let identity = identity("localhost");
    let server = certificate(&identity).alpn(&["amqp", "other"]).build().unwrap();
    let offers = |names: &[&str]| {
        options_for_client_tls("localhost").roots(&identity.root).alpn(names).build().unwrap()
    };
    let mut ends = Ends::new(&server, &offers(&["none", "other"]));
    ends.pump();
    for end in [&ends.client, &ends.server] {
        assert_eq!(end.transport().tls_info().unwrap().alpn.as_deref(), Some(&b"other"[..]));
    }
    let mut ends = Ends::new(&server, &offers(&["strange"]));
    ends.pump();
    says(&ends.at_server.last(), "InvalidData", "none of the protocols named for ALPN");
    says(&ends.at_client.last(), "InvalidData", "none of the protocols that we named");
    let mut ends = Ends::new(&server, &offers(&[]));
    ends.pump();
    assert_eq!(ends.client.transport().tls_info().unwrap().alpn, None);
}

#[test]
fn the_certificate_follows_the_name() {
    let (main, other) = (identity("localhost"), identity("other.example"));
    let server = certificate(&main).for_name("other.example", &other.chain, &other.key);
    let server = server.build().unwrap();
    for (host, root) in [("localhost", &main.root), ("other.example", &other.root)] {
        let client = options_for_client_tls(host).roots(root).build().unwrap();
        let mut ends = Ends::new(&server, &client);
        ends.pump();
        assert_eq!(ends.at_client.events(), ["handshake"], "{host}");
        let info = ends.server.transport().tls_info().unwrap();
        assert_eq!(info.server_name.as_deref(), Some(host));
    }
}

#[test]
fn old_versions_can_be_refused() {
    let (server, client) = options_12();
    let mut ends = Ends::new(&server, &client);
    ends.pump();
    let version = ends.server.transport().tls_info().unwrap().version;
    assert_eq!(version, ProtocolVersion::TLSv1_2);
    let newest = certificate(&identity("localhost")).min_version(TlsVersion::Tls13);
    let mut ends = Ends::new(&newest.build().unwrap(), &client);
    ends.pump();
    says(&ends.at_server.last(), "InvalidData", "in common");
    says(&ends.at_client.last(), "InvalidData", "in common");
}

#[test]
fn renewed_certificates_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let write = |identity: &crate::support::Identity| {
        std::fs::write(&chain, &identity.chain).unwrap();
        std::fs::write(&key, &identity.key).unwrap();
    };
    let (old, new) = (identity("localhost"), identity("localhost"));
    write(&old);
    let server = CertificateOptions::from_files(&chain, &key).build().unwrap();
    let elsewhere = server.clone();
    let trusts = |root: &str, server: &TlsServerOptions| {
        let client = options_for_client_tls("localhost").roots(root).build().unwrap();
        let mut ends = Ends::new(server, &client);
        ends.pump();
        ends.at_client.has("handshake")
    };
    assert!(trusts(&old.root, &server));
    write(&new);
    assert!(trusts(&old.root, &server), "not before it is told");
    server.reload().unwrap();
    assert!(trusts(&new.root, &elsewhere) && !trusts(&old.root, &elsewhere));
    // What is wrong changes nothing.
    std::fs::write(&key, &old.key).unwrap();
    let error = server.reload().unwrap_err();
    assert!(error.to_string().contains("not the one of the first certificate"), "{error}");
    assert!(error.to_string().contains("key.pem"), "{error}");
    std::fs::remove_file(&chain).unwrap();
    assert!(server.reload().unwrap_err().to_string().contains("chain.pem"));
    assert!(trusts(&new.root, &elsewhere));
    server.replace(&certificate(&old).build().unwrap());
    assert!(trusts(&old.root, &elsewhere));
}

#[test]
fn unusable_settings_are_named() {
    let identity = identity("localhost");
    let build = |chain: &str, key: &str| CertificateOptions::from_pem(chain, key).build();
    for (chain, key, text) in [
        ("", identity.key.as_str(), "no certificate"),
        (identity.chain.as_str(), "", "no private key"),
        (identity.chain.as_str(), "-----BEGIN PRIVATE KEY-----\n!\n", "no private key"),
    ] {
        let error = build(chain, key).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = options_for_client_tls("localhost").roots_file("/no/such.pem".as_ref()).build();
    assert!(error.unwrap_err().to_string().contains("/no/such.pem"));
    let empty = tempfile::tempdir().unwrap();
    assert!(options_for_client_tls("localhost").roots_folder(empty.path()).is_err());
    std::fs::write(empty.path().join("one.pem"), &identity.root).unwrap();
    std::fs::write(empty.path().join("other.txt"), "no certificate").unwrap();
    let folder = options_for_client_tls("localhost").roots_folder(empty.path()).unwrap();
    let server = certificate(&identity).build().unwrap();
    let mut ends = Ends::new(&server, &folder.build().unwrap());
    ends.pump();
    assert_eq!(ends.at_client.events(), ["handshake"]);
    let shown = format!("{:?} {:?}", certificate(&identity), options().0);
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
