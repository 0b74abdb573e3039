//! HTTP fetches that overlap, from a slow server that this program starts itself.
//!
//! `cargo run --example fetches`

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use warren::hub::net::{TcpListener, TcpStream};
use warren::hub::{join_all, run, sleep, spawn};

const PAGES: usize = 5;
const SLOWNESS: Duration = Duration::from_millis(100);

/// Answers one request, after a while.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(&stream);
    reader.read_line(&mut request)?;
    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
    // The rest of the request, up to the empty line.
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    drop(reader);
    sleep(SLOWNESS);
    let body = format!("the page {path}");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn fetch(addr: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
}

fn main() -> io::Result<()> {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        spawn(move || {
            for stream in listener.incoming().flatten() {
                spawn(move || serve(stream));
            }
        });
        let start = Instant::now();
        let fetches = (0..PAGES).map(|n| spawn(move || fetch(addr, &format!("/{n}"))));
        for page in join_all(fetches) {
            println!("{}", page.map_err(io::Error::other)??);
        }
        println!(
            "{PAGES} pages of {} ms each took {} ms",
            SLOWNESS.as_millis(),
            start.elapsed().as_millis()
        );
        Ok(())
    })
}
