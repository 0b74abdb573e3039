//! Our client over TLS: against our own server, or the one that the environment names by a URL with its files.

mod support;

use std::path::Path;

use support::{PATIENCE, Program, warren};
use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, ConsumeOptions, Error, Publish, QueueOptions};
use warren::hub::{run, with_timeout};

/// A server with certificates: `ca.pem`, and those of the server and of a client.
struct Server {
    folder: tempfile::TempDir,
    _program: Program,
    /// Without parameters.
    url: String,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        let file = |name: &str| folder.path().join(name);
        let mut command = warren();
        command
            .args(["serve", "--log", "error", "--listen", "amqps://127.0.0.1:0"])
            .arg("--data-dir")
            .arg(file("data"))
            .arg("--tls-cert")
            .arg(file("server.pem"))
            .arg("--tls-key")
            .arg(file("server.key"))
            .arg("--tls-ca")
            .arg(file("ca.pem"));
        let program = Program::start(&mut command);
        let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
        assert_eq!(program.line(), "ready");
        Self { folder, _program: program, url }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// With the authority that vouches for it, and more parameters.
    fn url(&self, more: &str) -> String {
        format!("{}?cacertfile={}{more}", self.url, self.file("ca.pem"))
    }
}

fn make_certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (file, names) in
        [("server", vec!["localhost".to_owned(), "127.0.0.1".into()]), ("client", vec![])]
    {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "guest");
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        let both = format!("{}{}", certificate.pem(), key.serialize_pem());
        std::fs::write(folder.join(format!("{file}.both.pem")), both).unwrap();
    }
}

/// A message there and back.
fn round_trip(url: &str) -> Result<(), Error> {
    let url = url.to_owned();
    run(move || {
        with_timeout(PATIENCE, || {
            let connection = Connection::open(&url)?;
            let channel = connection.channel()?;
            let options = QueueOptions { exclusive: true, ..QueueOptions::default() };
            let queue = channel.queue_declare("", options)?.queue;
            // More than a record of TLS holds.
            let body = vec![7; 200_000];
            channel.publish(Publish::to("", &queue), &BasicProperties::new(), &body)?.wait()?;
            let got = channel.basic_get(&queue, true)?.expect("the message");
            assert!(got.delivery.body == body);
            connection.close()
        })
    })
    .expect("it does not hang")
}

#[track_caller]
fn fails(url: &str, why: &str) {
    let error = round_trip(url).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn messages_pass_over_tls() {
    match std::env::var("WARREN_TEST_AMQPS_URL") {
        Ok(url) => round_trip(&url).unwrap(),
        Err(_) => {
            let server = Server::start();
            round_trip(&server.url("")).unwrap();
            let (cert, key) = (server.file("client.pem"), server.file("client.key"));
            round_trip(&server.url(&format!("&certfile={cert}&keyfile={key}"))).unwrap();
            // The key may stand with its certificate.
            let both = server.file("client.both.pem");
            round_trip(&server.url(&format!("&certfile={both}"))).unwrap();
        }
    }
}

/// The user of a certificate logs in without a password. The broker must know the user: RabbitMQ with its plugin
/// `rabbitmq_auth_mechanism_ssl`.
#[test]
fn a_certificate_is_a_login() {
    if let Ok(url) = std::env::var("WARREN_TEST_AMQPS_URL") {
        round_trip(&format!("{url}&auth_mechanism=external")).unwrap();
    }
}

#[test]
fn nobody_is_trusted_for_nothing() {
    let server = Server::start();
    // The system does not know who vouches for it.
    let error = round_trip(&server.url).unwrap_err().to_string();
    assert!(error.starts_with("cannot connect to 127.0.0.1:"), "{error}");
    fails(&server.url("&server_name_indication=elsewhere"), "elsewhere");
    round_trip(&server.url("&server_name_indication=localhost")).unwrap();
    round_trip(&server.url("&server_name_indication=disable")).unwrap();
    round_trip(&format!("{}?verify=verify_none", server.url)).unwrap();
}

#[test]
fn what_is_wrong_with_the_files_is_told() {
    let server = Server::start();
    fails(&format!("{}?cacertfile=/there/is/none", server.url), "/there/is/none");
    let key = server.file("client.key");
    fails(&format!("{}?cacertfile={key}", server.url), "there is no certificate");
    let cert = server.file("client.pem");
    fails(&server.url(&format!("&certfile={cert}")), "no private key");
    // The server speaks TLS, the client does not.
    let plain = server.url.replace("amqps://", "amqp://");
    fails(&plain, "it speaks TLS here: use an amqps:// URL");
}

#[test]
fn a_login_that_the_server_does_not_offer_is_named() {
    let server = Server::start();
    fails(
        &server.url("&auth_mechanism=external"),
        "of which EXTERNAL is none: see auth_mechanism of the URL",
    );
    round_trip(&server.url("&auth_mechanism=external&auth_mechanism=amqplain")).unwrap();
}

#[test]
fn events_tell_how_a_connection_is_encrypted() {
    let server = Server::start();
    let (cert, key) = (server.file("client.pem"), server.file("client.key"));
    let url = server.url(&format!("&certfile={cert}&keyfile={key}"));
    run(move || {
        with_timeout(PATIENCE, || {
            let connection = Connection::open(&url)?;
            let channel = connection.channel()?;
            let options = QueueOptions { exclusive: true, ..QueueOptions::default() };
            let queue = channel.queue_declare("", options)?.queue;
            channel.queue_bind(&queue, "amq.rabbitmq.event", "connection.created")?;
            let no_ack = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
            let mut created = channel.basic_consume(&queue, no_ack)?;
            Connection::open(&url)?.close()?;
            let headers = created.next().expect("an event")?.properties.headers.expect("headers");
            assert_eq!(headers.get("ssl"), Some(&true.into()));
            for (header, value) in [
                ("ssl_protocol", "tlsv1.3"),
                ("ssl_key_exchange", "any"),
                ("ssl_hash", "aead"),
                ("peer_cert_subject", "CN=guest"),
            ] {
                assert_eq!(headers.get(header), Some(&value.into()), "{header}");
            }
            connection.close()
        })
    })
    .expect("the test does not hang")
    .expect("the test has no error");
}
