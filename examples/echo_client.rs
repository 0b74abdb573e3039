//! Many connections to an echo server at once, each with a line of its own.
//!
//! `cargo run --example echo_client 127.0.0.1:7000 100`

use std::io::{self, BufRead, BufReader, Write};

use warren::hub::net::TcpStream;
use warren::hub::{join_all, run, spawn};

fn talk(addr: &str, number: usize) -> io::Result<bool> {
    let stream = TcpStream::connect(addr)?;
    let line = format!("I am number {number}\n");
    (&stream).write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    Ok(answer == line)
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or_else(|| "127.0.0.1:7000".into());
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(100);
    run(move || {
        let clients = (0..count).map(|number| {
            let addr = addr.clone();
            spawn(move || talk(&addr, number))
        });
        let mut echoed = 0;
        for client in join_all(clients) {
            echoed += usize::from(client.map_err(io::Error::other)??);
        }
        println!("{echoed} of {count} lines came back");
        Ok(())
    })
}
