//! An HTTP/1 server made with hyper, on fibers: its handlers are async, and what they call may park a fiber.
//!
//! `cargo run -p warren-bridges --example hyper_server 127.0.0.1:7000`, then `curl http://127.0.0.1:7000/fibers`

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, server::conn::http1};
use warren_hub::bridge::hyper::HubTimer;
use warren_hub::net::TcpListener;
use warren_hub::{future, run, sleep, spawn};

async fn greet(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    // Code that waits as if it blocked runs on a fiber of its own, and is awaited.
    let greeting = spawn(move || {
        sleep(Duration::from_millis(1));
        format!("hello, {name}\n")
    });
    Ok(Response::new(greeting.await.unwrap_or_else(|error| error.to_string())))
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    run(move || {
        let listener = TcpListener::bind(addr)?;
        println!("listening on {}", listener.local_addr()?);
        let mut http = http1::Builder::new();
        http.timer(HubTimer);
        for stream in listener.incoming() {
            let connection = http.serve_connection(stream?, service_fn(greet));
            // A fiber for each connection; a client that breaks off is no reason to end.
            future::spawn(async { drop(connection.await) });
        }
        Ok(())
    })
}
