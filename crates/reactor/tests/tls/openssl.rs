//! OpenSSL's programs as peers, where they are installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use warren_hub::process::{Child, Command, Stdio};
use warren_hub::{run, spawn};
use warren_reactor::tls::rustls::ProtocolVersion;
use warren_reactor::tls::{
    CertificateOptions, ClientAuth, TlsServerOptions, connect_ssl, listen_ssl,
    options_for_client_tls,
};
use warren_reactor::{PeerAddr, Protocol, Reason, Transport, listen_tcp};

use crate::sockets::{ip, localhost, noting, until};
use crate::support::{Heard, Identity, Notes, certificate, identity};

fn has_openssl() -> bool {
    std::process::Command::new("openssl").arg("version").output().is_ok()
}

/// The files that the programs want.
struct Files(tempfile::TempDir);

impl Files {
    fn new(identity: &Identity) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = [("root", &identity.root), ("chain", &identity.chain), ("key", &identity.key)];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

fn s_client(root: &Path, connect: &str, more: &[&str]) -> Child {
    Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-servername", "localhost", "-connect", connect])
        .arg("-CAfile")
        .arg(root)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Has the client say `line`, which must not begin with a letter that is a command to it, and waits for it to come back.
fn converse(client: &mut Child, line: &str) {
    client.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    let mut output = BufReader::new(client.stdout.as_mut().unwrap());
    let mut seen = String::new();
    while !seen.ends_with(line) {
        assert_ne!(output.read_line(&mut seen).unwrap(), 0, "it ended: {seen}");
    }
}

fn echo(heard: &Heard) -> Box<impl warren_reactor::ClientFactory + use<>> {
    noting(heard, |notes| notes.echoes = true)
}

#[test]
fn openssl_is_served() {
    if !has_openssl() {
        return;
    }
    run(|| {
        let identity = identity("localhost");
        let files = Files::new(&identity);
        let server = certificate(&identity).alpn(&["echo"]).build().unwrap();
        for (flag, version) in
            [("-tls1_2", ProtocolVersion::TLSv1_2), ("-tls1_3", ProtocolVersion::TLSv1_3)]
        {
            let heard = Heard::default();
            let port = listen_ssl(localhost(), echo(&heard), &server).unwrap();
            let connect = ip(&port).to_string();
            let more = [flag, "-alpn", "other,echo", "-verify_hostname", "localhost"];
            let mut client = s_client(&files.path("root"), &connect, &more);
            converse(&mut client, "from openssl\n");
            let info = heard.transport().tls_info().unwrap();
            assert_eq!(info.version, version);
            assert_eq!(info.alpn.as_deref(), Some(&b"echo"[..]));
            if version == ProtocolVersion::TLSv1_3 {
                // New keys, for both directions.
                client.stdin.as_mut().unwrap().write_all(b"K\n").unwrap();
                let mut said = BufReader::new(client.stderr.take().unwrap()).lines();
                assert!(said.any(|line| line.unwrap() == "KEYUPDATE"));
                converse(&mut client, "with new keys\n");
            }
            // The end of its input: it says farewell.
            drop(client.stdin.take());
            until(|| heard.has("closed by the peer"));
            assert!(client.wait().unwrap().success());
        }
    });
}

#[test]
fn openssl_must_show_a_certificate() {
    if !has_openssl() {
        return;
    }
    run(|| {
        let (identity, of_client) = (identity("localhost"), identity("a client"));
        let (files, theirs) = (Files::new(&identity), Files::new(&of_client));
        let server = CertificateOptions::from_files(&files.path("chain"), &files.path("key"))
            .client_roots_file(&theirs.path("root"), ClientAuth::Required);
        let heard = Heard::default();
        let port = listen_ssl(localhost(), echo(&heard), &server.build().unwrap()).unwrap();
        let connect = ip(&port).to_string();
        let (chain, key) = (theirs.path("chain"), theirs.path("key"));
        let more = ["-cert", chain.to_str().unwrap(), "-key", key.to_str().unwrap()];
        let mut client = s_client(&files.path("root"), &connect, &more);
        converse(&mut client, "it is known\n");
        assert_eq!(heard.transport().tls_info().unwrap().peer_certificates.len(), 1);
        let mut unknown = s_client(&files.path("root"), &connect, &[]);
        until(|| heard.last().contains("must show a certificate"));
        assert!(!unknown.wait().unwrap().success());
    });
}

/// As much of a mail server as STARTTLS takes.
struct Mail {
    notes: Notes,
    tls: TlsServerOptions,
    secret: bool,
}

impl Protocol for Mail {
    fn connection_made(&mut self, transport: &Transport) {
        self.notes.connection_made(transport);
        transport.write(b"220 mail\r\n");
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        if self.secret {
            self.notes.data_received(transport, data);
        } else if data.starts_with(b"EHLO") {
            transport.write(b"250-mail\r\n250 STARTTLS\r\n");
        } else {
            let rest = data.strip_prefix(b"STARTTLS\r\n").unwrap();
            transport.write(b"220 go on\r\n");
            transport.start_tls(&self.tls, rest).unwrap();
            self.secret = true;
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.notes.connection_lost(reason);
    }
}

#[test]
fn openssl_starts_tls_in_a_mail_session() {
    if !has_openssl() {
        return;
    }
    run(|| {
        let identity = identity("localhost");
        let files = Files::new(&identity);
        let tls = certificate(&identity).build().unwrap();
        let heard = Heard::default();
        let at_server = heard.clone();
        let accept = move |_: &PeerAddr| {
            let mut notes = Notes::new(&at_server);
            notes.echoes = true;
            Some(Box::new(Mail { notes, tls: tls.clone(), secret: false }) as Box<dyn Protocol>)
        };
        let port = listen_tcp(localhost(), Box::new(accept)).unwrap();
        let connect = ip(&port).to_string();
        let mut client = s_client(&files.path("root"), &connect, &["-starttls", "smtp"]);
        converse(&mut client, "a secret letter\n");
        drop(client.stdin.take());
        until(|| heard.has("closed by the peer"));
    });
}

#[test]
fn openssl_serves_us() {
    if !has_openssl() {
        return;
    }
    run(|| {
        let (identity, ours) = (identity("localhost"), identity("a client"));
        let (files, our_files) = (Files::new(&identity), Files::new(&ours));
        for flag in ["-tls1_2", "-tls1_3"] {
            let mut server = Command::new("openssl")
                // Answers each line reversed.
                .args(["s_server", "-rev", "-naccept", "1", "-accept", "127.0.0.1:0", flag])
                .args(["-Verify", "1", "-verify_return_error", "-CAfile"])
                .arg(our_files.path("root"))
                .arg("-cert")
                .arg(files.path("chain"))
                .arg("-key")
                .arg(files.path("key"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut output = BufReader::new(server.stdout.take().unwrap());
            let mut line = String::new();
            while !line.starts_with("ACCEPT") {
                line.clear();
                assert_ne!(output.read_line(&mut line).unwrap(), 0);
            }
            // It must not be kept waiting with what else it says.
            spawn(move || output.read_to_end(&mut Vec::new()));
            let addr = line.trim().split(' ').nth(1).unwrap().parse().unwrap();
            let client = options_for_client_tls("localhost")
                .roots_file(&files.path("root"))
                .certificate_files(&our_files.path("chain"), &our_files.path("key"));
            let heard = Heard::default();
            let factory = noting(&heard, |notes| notes.writes = b"hello\n".to_vec());
            connect_ssl(addr, factory, &client.build().unwrap());
            until(|| heard.data() == b"olleh\n");
            heard.transport().lose_connection();
            until(|| heard.has("closed here"));
            server.kill().unwrap();
        }
    });
}
