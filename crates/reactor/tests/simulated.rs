//! Protocols over a simulated network: bytes cut anywhere, connections lost at any point, each run told by its seed.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use warren_hub::net::TcpStream;
use warren_hub::sync::Event;
use warren_hub::{sim, sleep};
use warren_reactor::{PeerAddr, Protocol, Reason, Transport, listen_tcp};

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

fn serve() {
    let factory = |_: &PeerAddr| Some(Box::new(Lengths::default()) as Box<dyn Protocol>);
    let _port = listen_tcp("0.0.0.0:7".parse().unwrap(), Box::new(factory)).unwrap();
    Event::new().wait();
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
        world.node("server", serve);
        sleep(Duration::from_millis(1));
        let lengths = [0, 1, 5000, 17];
        let answers = loop {
            // Refused until the server's first turn has come.
            match ask(&lengths) {
                Ok(answers) => break answers,
                Err(_) => sleep(Duration::from_millis(5)),
            }
        };
        assert_eq!(answers, lengths);
    });
}

#[test]
fn connections_that_are_cut_harm_no_other() {
    sim::check(0..40, |world| {
        world.net().cuts(0.05);
        world.node("server", serve);
        let lengths = [3, 200, 40];
        let mut whole = 0;
        while whole < 5 {
            match ask(&lengths) {
                Ok(answers) if answers.len() == lengths.len() => {
                    assert_eq!(answers, lengths);
                    whole += 1;
                }
                // The connection was cut.
                Ok(answers) => assert!(lengths.starts_with(&answers)),
                Err(_) => sleep(Duration::from_millis(5)),
            }
        }
    });
}
