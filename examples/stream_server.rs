//! Echoes line by line, to at most a thousand clients at once. gevent's `echoserver.py`.
//!
//! `cargo run --example stream_server 127.0.0.1:16000`, then `nc 127.0.0.1 16000`

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;

use warren::hub::net::TcpStream;
use warren::hub::run;
use warren::hub::server::StreamServer;

fn echo(stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    println!("New connection from {peer}");
    (&stream).write_all(b"Welcome to the echo server! Type quit to exit.\r\n")?;
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if line.trim().eq_ignore_ascii_case("quit") {
            println!("client quit");
            return Ok(());
        }
        (&stream).write_all(format!("{line}\n").as_bytes())?;
        println!("echoed {line}");
    }
    println!("client disconnected");
    Ok(())
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:16000".into());
    run(move || {
        // A client that goes away in the middle is no reason to say anything.
        let server = StreamServer::bind(addr, |stream, peer| drop(echo(stream, peer)))?.limit(1000);
        println!("Starting echo server on {}", server.address());
        server.serve_forever();
        Ok(())
    })
}
