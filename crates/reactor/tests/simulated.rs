//! Protocols over a simulated network: bytes cut anywhere, connections lost at any point, each run told by its seed.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use warren_hub::net::TcpStream;
use warren_hub::{sim, sleep};
use warren_reactor::testing::serve;
use warren_reactor::{PeerAddr, Protocol, Reason, Transport};

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
