//! Our client over TLS: against our own server, or the one that the environment names by a URL with its files.

mod support;

use std::path::PathBuf;

use support::certificates::Authority;
use support::{PATIENCE, Program, warren};
use warren::amqp::BasicProperties;
use warren::amqp::client::{Channel, Connection, ConsumeOptions, Error, Publish, QueueOptions};
use warren::hub::{run, with_timeout};

/// A server, with the certificates of [`Authority::certify_all_in`]. It offers EXTERNAL for common names.
struct Server {
    folder: PathBuf,
    /// Unless it is the one that the environment names.
    _own: Option<(Program, tempfile::TempDir)>,
    /// Without parameters.
    url: String,
}

impl Server {
    fn get() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        match (variable("WARREN_TEST_AMQPS_URL"), variable("WARREN_TEST_CERTIFICATES")) {
            (Some(url), Some(folder)) => Self { folder: folder.into(), _own: None, url },
            _ => Self::start(&["--auth-mechanisms", "PLAIN,AMQPLAIN,EXTERNAL"]),
        }
    }

    /// One of our own.
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Authority::certify_all_in(folder.path());
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
            .arg(file("ca.pem"))
            .args(["--tls-cert-login-from", "common_name"])
            .args(more);
        let program = Program::start(&mut command);
        let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
        assert_eq!(program.line(), "ready");
        Self { folder: folder.path().to_owned(), _own: Some((program, folder)), url }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// With the authority that vouches for it, and more parameters.
    fn url(&self, more: &str) -> String {
        format!("{}?cacertfile={}{more}", self.url, self.file("ca.pem"))
    }
}

/// Does it with a connection, a channel and a queue of its own.
fn with_queue(
    url: &str,
    work: impl FnOnce(&Channel, &str) -> Result<(), Error> + 'static,
) -> Result<(), Error> {
    let url = url.to_owned();
    run(move || {
        with_timeout(PATIENCE, || {
            let connection = Connection::open(&url)?;
            let channel = connection.channel()?;
            let options = QueueOptions { exclusive: true, ..QueueOptions::default() };
            let queue = channel.queue_declare("", options)?.queue;
            work(&channel, &queue)?;
            connection.close()
        })
    })
    .expect("it does not hang")
}

/// A message there and back.
fn round_trip(url: &str) -> Result<(), Error> {
    with_queue(url, |channel, queue| {
        // More than a record of TLS holds.
        let body = vec![7; 200_000];
        channel.publish(Publish::to("", queue), &BasicProperties::new(), &body)?.wait()?;
        let got = channel.basic_get(queue, true)?.expect("the message");
        assert!(got.delivery.body == body);
        Ok(())
    })
}

#[track_caller]
fn fails(url: &str, why: &str) {
    let error = round_trip(url).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn messages_pass_over_tls() {
    let server = Server::get();
    round_trip(&server.url("")).unwrap();
    let (cert, key) = (server.file("client.pem"), server.file("client.key"));
    round_trip(&server.url(&format!("&certfile={cert}&keyfile={key}"))).unwrap();
    // The key may stand with its certificate.
    let both = server.file("client.both.pem");
    round_trip(&server.url(&format!("&certfile={both}"))).unwrap();
}

#[test]
fn a_certificate_is_a_login() {
    let server = Server::get();
    let both = server.file("client.both.pem");
    round_trip(&server.url(&format!("&certfile={both}&auth_mechanism=external"))).unwrap();
    fails(
        &server.url("&auth_mechanism=external"),
        "Login was refused using authentication mechanism EXTERNAL",
    );
}

#[test]
fn nobody_is_trusted_for_nothing() {
    let server = Server::get();
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
    let server = Server::get();
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
    let server = Server::start(&[]);
    fails(
        &server.url("&auth_mechanism=external"),
        "of which EXTERNAL is none: see auth_mechanism of the URL",
    );
    round_trip(&server.url("&auth_mechanism=external&auth_mechanism=amqplain")).unwrap();
}

#[test]
fn events_tell_how_a_connection_is_encrypted() {
    let server = Server::get();
    let (cert, key) = (server.file("client.pem"), server.file("client.key"));
    let url = server.url(&format!("&certfile={cert}&keyfile={key}"));
    let other = url.clone();
    with_queue(&url, move |channel, queue| {
        channel.queue_bind(queue, "amq.rabbitmq.event", "connection.created")?;
        let no_ack = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
        let mut created = channel.basic_consume(queue, no_ack)?;
        Connection::open(&other)?.close()?;
        let headers = created.next().expect("an event")?.properties.headers.expect("headers");
        assert_eq!(headers.get("ssl"), Some(&true.into()));
        for (header, value) in [
            ("ssl_protocol", "tlsv1.3"),
            ("ssl_key_exchange", "any"),
            ("ssl_hash", "aead"),
            ("peer_cert_subject", "CN=guest,O=Acme\\, Inc."),
        ] {
            assert_eq!(headers.get(header), Some(&value.into()), "{header}");
        }
        Ok(())
    })
    .unwrap();
}
