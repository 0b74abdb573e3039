//! russh, which spawns tokio tasks: client and server beside the hub, used from fibers.

use std::sync::Arc;

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::server::{self, Msg, Server as _, Session};
use russh::{Channel, ChannelId, ChannelMsg, client};
use tokio::net::TcpListener;
use warren_hub::bridge::tokio::run as on_tokio;
use warren_hub::{join_all, run, spawn};

/// Lets one key in, and answers a command with its text.
#[derive(Clone)]
struct Answers(PublicKey);

impl server::Server for Answers {
    type Handler = Self;

    fn new_client(&mut self, _: Option<std::net::SocketAddr>) -> Self {
        self.clone()
    }
}

impl server::Handler for Answers {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: server::VerifiedPublicKey<'_>,
    ) -> Result<server::Auth, Self::Error> {
        let known = user == "rabbit" && key.public_key.key_data() == self.0.key_data();
        Ok(if known { server::Auth::Accept } else { server::Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        session.data(channel, command.to_ascii_uppercase())?;
        session.exit_status_request(channel, 0)?;
        session.eof(channel)?;
        session.close(channel)
    }
}

struct Trusts(PublicKey);

impl client::Handler for Trusts {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        Ok(key.key_data() == self.0.key_data())
    }
}

/// Always the same one for a seed: nothing here is secret.
fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

#[test]
fn fibers_run_commands_over_ssh() {
    run(|| {
        let (host, user) = (key(1), key(2));
        let mut answers = Answers(user.public_key().clone());
        let trusted = host.public_key().clone();
        let config = server::Config { keys: vec![host], ..Default::default() };
        let addr = on_tokio(move || async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            tokio::spawn(async move { answers.run_on_socket(Arc::new(config), &listener).await });
            addr
        });
        let connect = move |user: PrivateKey| {
            let trusts = Trusts(trusted.clone());
            on_tokio(move || async move {
                let config = Arc::new(client::Config::default());
                let mut session = client::connect(config, addr, trusts).await.unwrap();
                let user = PrivateKeyWithHashAlg::new(Arc::new(user), None);
                let answer = session.authenticate_publickey("rabbit", user).await.unwrap();
                (Arc::new(session), answer.success())
            })
        };
        let (session, let_in) = connect(user);
        assert!(let_in);
        // Many channels of one session, each used by a fiber.
        let commands = (0..5).map(|number| {
            let session = session.clone();
            spawn(move || {
                on_tokio(move || async move {
                    let mut channel = session.channel_open_session().await.unwrap();
                    channel.exec(true, format!("command {number}")).await.unwrap();
                    let (mut output, mut status) = (Vec::new(), None);
                    while let Some(message) = channel.wait().await {
                        match message {
                            ChannelMsg::Data { data } => output.extend_from_slice(&data),
                            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                            _ => {}
                        }
                    }
                    assert_eq!(output, format!("COMMAND {number}").into_bytes());
                    assert_eq!(status, Some(0));
                });
            })
        });
        for ended in join_all(commands) {
            ended.unwrap();
        }
        let (_, let_in) = connect(key(3));
        assert!(!let_in);
    });
}
