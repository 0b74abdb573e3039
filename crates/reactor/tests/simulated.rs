//! Protocols over a simulated network: bytes cut anywhere, connections lost at any point, each run told by its seed.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::TcpStream;
use warren_hub::{sim, sleep};
use warren_reactor::endpoints::TcpClientEndpoint;
use warren_reactor::service::{Application, ClientService, TimerService};
use warren_reactor::testing::serve;
use warren_reactor::{PeerAddr, Protocol, Reason, Runner, Transport, stop};

/// Answers each line with its length.
#[derive(Default)]
struct Lengths {
    line: Vec<u8>,
}

impl Protocol for Lengths {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        for &byte in data {
            if byte == b'\n' {
                transport.write(format!("{}\n", self.line.len()).as_bytes());
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// The port's factory.
fn lengths(_: &PeerAddr) -> Option<Box<dyn Protocol>> {
    Some(Box::new(Lengths::default()))
}

/// One conversation, or the error that ended it.
fn ask(lengths: &[usize]) -> std::io::Result<Vec<usize>> {
    let mut stream = TcpStream::connect("server:7")?;
    for &length in lengths {
        stream.write_all(&vec![b'x'; length])?;
        stream.write_all(b"\n")?;
    }
    let lines = BufReader::new(stream).lines().take(lengths.len());
    lines.map(|line| Ok(line?.parse().unwrap())).collect()
}

#[test]
fn a_protocol_gets_every_byte_however_they_are_cut() {
    sim::check(0..40, |world| {
        world.net().latency(Duration::from_millis(1)..=Duration::from_millis(80));
        serve(world, "server", 7, || lengths);
        let asked = [0, 1, 5000, 17];
        assert_eq!(ask(&asked).unwrap(), asked);
    });
}

#[test]
fn connections_that_are_cut_harm_no_other() {
    sim::check(0..40, |world| {
        world.net().cuts(0.05);
        serve(world, "server", 7, || lengths);
        let asked = [3, 200, 40];
        let mut whole = 0;
        while whole < 5 {
            match ask(&asked) {
                Ok(answers) if answers.len() == asked.len() => {
                    assert_eq!(answers, asked);
                    whole += 1;
                }
                // The connection was cut.
                Ok(answers) => assert!(asked.starts_with(&answers)),
                Err(_) => sleep(Duration::from_millis(5)),
            }
        }
    });
}

/// Notes what the peer says.
struct Notes(Rc<RefCell<Vec<u8>>>);

impl Protocol for Notes {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.0.borrow_mut().extend(data);
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// A program of services, whose clock, chance and network a seed decides: it asks every second, over a connection that is
/// cut now and then, until it has had ten answers.
#[test]
fn an_application_keeps_its_connection_in_any_world() {
    sim::check(0..20, |world| {
        world.net().cuts(0.05).latency(Duration::from_millis(1)..=Duration::from_millis(80));
        let server = serve(world, "server", 7, || lengths);
        let notes = Rc::<RefCell<Vec<u8>>>::default();
        let said = notes.clone();
        let endpoint = TcpClientEndpoint::new(SocketAddr::new(server.ip(), 7));
        let client = ClientService::new(endpoint, move |_: &PeerAddr| {
            Some(Box::new(Notes(said.clone())) as _)
        });
        let asking = client.clone();
        let answers = notes.clone();
        let timer = TimerService::new(Duration::from_secs(1), move || {
            let whole = answers.borrow().iter().filter(|byte| **byte == b'\n').count();
            if whole >= 10 {
                let _ = stop();
            } else if let Some(transport) = asking.transport() {
                transport.write(b"hello\n");
            }
        });
        let runner = Runner::new().without_signals().shutdown_timeout(Duration::from_secs(60));
        let application = Application::new("asking").runner(runner);
        application.services().add_service(client.clone()).unwrap();
        application.services().add_service(timer).unwrap();
        assert_eq!(application.run().unwrap().failed, 0);
        assert!(client.transport().is_none(), "the shutdown has waited for its end");
        // An answer may have been cut with its connection.
        assert!(notes.borrow().iter().all(|byte| b"5\n".contains(byte)));
    });
}
