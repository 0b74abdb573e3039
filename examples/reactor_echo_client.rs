//! Sends words to an echo server and prints what comes back, on the reactor.
//!
//! `cargo run --example reactor_echo_client 127.0.0.1:1234 hello world`

use std::process::ExitCode;
use std::rc::Rc;

use warren::hub::run;
use warren::hub::sync::Queue;
use warren::reactor::{
    ClientFactory, Connector, Factory, PeerAddr, Protocol, Reason, Transport, connect_tcp,
};

/// What the fiber that waits is told in the end.
type Outcome = Rc<Queue<Result<(), String>>>;

/// One connection: says its text, and is content when all of it has come back.
struct EchoClient {
    text: String,
    /// What has come back, in as many pieces as the network likes.
    echo: Vec<u8>,
    outcome: Outcome,
}

impl Protocol for EchoClient {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(self.text.as_bytes());
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.echo.extend_from_slice(data);
        if self.echo.len() >= self.text.len() {
            println!("{}", String::from_utf8_lossy(&self.echo));
            transport.lose_connection();
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        let all = self.echo == self.text.as_bytes();
        let outcome = match all {
            true => Ok(()),
            false => {
                Err(format!("{} of {} bytes came back: {reason}", self.echo.len(), self.text.len()))
            }
        };
        let _ = self.outcome.put(outcome);
    }
}

/// Makes the protocol once the connection stands, and hears when it does not come to that.
struct EchoFactory {
    text: String,
    outcome: Outcome,
}

impl Factory for EchoFactory {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let (text, outcome) = (self.text.clone(), self.outcome.clone());
        Some(Box::new(EchoClient { text, echo: Vec::new(), outcome }))
    }
}

impl ClientFactory for EchoFactory {
    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        let server = connector.destination();
        let text = format!("cannot connect to {server}: {reason}; start reactor_echo_server there");
        let _ = self.outcome.put(Err(text));
    }
}

fn talk(addr: &str, text: String) -> Result<(), String> {
    let addr = addr.parse().map_err(|_| format!("{addr} is no address such as 127.0.0.1:1234"))?;
    let outcome = Outcome::new(Queue::unbounded());
    connect_tcp(addr, Box::new(EchoFactory { text, outcome: outcome.clone() }));
    // The loop does the work; this fiber waits for the end of it.
    outcome.get().map_err(|error| error.to_string())?
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or_else(|| "127.0.0.1:1234".into());
    let mut text = arguments.collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        text = "hello, world".into();
    }
    match run(move || talk(&addr, text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
