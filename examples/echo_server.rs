//! Echoes what it is sent, to any number of clients: one fiber each.
//!
//! `cargo run --example echo_server 127.0.0.1:7000`

use std::io;

use warren::hub::net::TcpListener;
use warren::hub::{run, spawn};

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    run(move || {
        let listener = TcpListener::bind(addr)?;
        println!("listening on {}", listener.local_addr()?);
        for stream in listener.incoming() {
            let stream = stream?;
            spawn(move || io::copy(&mut &stream, &mut &stream));
        }
        Ok(())
    })
}
