//! A library that knows nothing of fibers, on fibers: its blocking calls park the fiber instead of the thread.
//!
//! `cargo run --example patched`

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use warren::hub::{join_all, run, spawn};
use warren_patch::patch_all;

const PAGES: usize = 5;
const SLOWNESS: Duration = Duration::from_millis(100);

/// Blocking code, as from any crate: the standard library and nothing else.
mod library {
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;

    /// Answers requests with their own path, each after a while.
    pub(crate) fn serve(listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    }

    fn answer(mut stream: TcpStream) -> io::Result<()> {
        let lines = BufReader::new(stream.try_clone()?).lines();
        let request: Vec<String> =
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/");
        thread::sleep(super::SLOWNESS);
        write!(stream, "HTTP/1.0 200 OK\r\n\r\nthe page {path}")
    }

    pub(crate) fn fetch(addr: SocketAddr, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(addr)?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
    }
}

fn main() -> io::Result<()> {
    patch_all();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    // The server has threads of its own, without a hub: there everything blocks as ever.
    thread::spawn(move || library::serve(&listener));
    run(move || {
        let start = Instant::now();
        let fetches = (0..PAGES).map(|n| spawn(move || library::fetch(addr, &format!("/{n}"))));
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
