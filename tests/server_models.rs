//! The example `server_models`: each model does the same.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use rustix::process::{Resource, getrlimit, setrlimit};
use support::{PATIENCE, Program, example};

struct Server {
    _program: Program,
    addr: String,
}

impl Server {
    fn start(model: &str, job: &str) -> Self {
        Self::start_with(example("server_models").args([model, job]))
    }

    fn start_with(command: &mut std::process::Command) -> Self {
        let program = Program::start(command);
        let addr = program.line().strip_prefix("listening on ").unwrap().to_owned();
        Self { _program: program, addr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// All that is answered to `request`, until the server closes.
    fn answers(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

fn check(model: &str) {
    echoes(model);
    answers_http(model);
}

fn echoes(model: &str) {
    let server = Server::start(model, "echo");
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for round in 0..3 {
        // All at once, so that none is answered by a server that waits for another one.
        for (number, client) in clients.iter_mut().enumerate() {
            write!(client, "{round} of {number:2}").unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut answer = [0; 7];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, *format!("{round} of {number:2}").as_bytes());
        }
    }
    // More than the buffers of a connection hold, so that the server cannot send it at once either.
    let large: Vec<u8> = (0..8 << 20).map(|byte: u32| byte.to_le_bytes()[1]).collect();
    let client = clients.pop().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&large).unwrap());
        let mut answer = vec![0; large.len()];
        (&client).read_exact(&mut answer).unwrap();
        assert!(answer == large, "not the same bytes");
    });
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&client).read(&mut [0]).unwrap(), 0, "the server closes too");
}

fn answers_http(model: &str) {
    let server = Server::start(model, "http");
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    let (one, last) = (
        format!("{ok}Content-Length: 17\r\n\r\nyou asked for /a\n"),
        format!("{ok}Connection: close\r\nContent-Length: 17\r\n\r\nyou asked for /b\n"),
    );
    let requests = "GET /a HTTP/1.1\r\nHost: here\r\n\r\nGET /b HTTP/1.1\r\nHost:here\r\nConnection: close\r\n\r\n";
    // Both at once, and cut at each place on a connection of its own.
    assert_eq!(server.answers(requests), format!("{one}{last}"));
    for cut in 1..requests.len() {
        let mut stream = server.connect();
        stream.write_all(&requests.as_bytes()[..cut]).unwrap();
        stream.write_all(&requests.as_bytes()[cut..]).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{one}{last}"), "cut at {cut}");
    }
    let head = format!("{ok}Connection: close\r\nContent-Length: 17\r\n\r\n");
    assert_eq!(server.answers("HEAD /b HTTP/1.0\r\n\r\n"), head);
    let long = format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(8 * 1024));
    for (request, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost : here\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported"),
        ("PUT / HTTP/1.1\r\nHost: here\r\n\r\n", "405 Method Not Allowed\r\nAllow: GET, HEAD"),
        ("GET / HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\n", "413 Content Too Large"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let refusal =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(server.answers(request), refusal, "{request}");
    }
}

#[test]
fn process() {
    check("process");
}

#[test]
fn thread() {
    check("thread");
}

#[test]
fn select() {
    check("select");
}

#[test]
fn poll() {
    check("poll");
}

#[test]
fn epoll() {
    check("epoll");
}

#[test]
fn reactor() {
    check("reactor");
}

#[test]
fn fibers() {
    check("fibers");
}

#[test]
fn select_refuses_what_it_cannot_watch_and_serves_on() {
    const CLIENTS: usize = 1_050;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let complaints = tempfile::NamedTempFile::new().unwrap();
    let server = Server::start_with(
        example("server_models").args(["select", "echo"]).stderr(complaints.reopen().unwrap()),
    );
    let mut refused = 0;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.connect();
        let answer = client.write_all(b"x").and_then(|()| client.read_exact(&mut [0]));
        match answer.map_err(|error| error.kind()) {
            Ok(()) => {}
            Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                refused += 1;
            }
            Err(kind) => panic!("{kind}"),
        }
        clients.push(client);
    }
    // A few of the 1024 are the program's own.
    assert!((CLIENTS - 1_024..CLIENTS - 1_000).contains(&refused), "{refused}");
    clients[0].write_all(b"y").unwrap();
    let mut answer = [0];
    clients[0].read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"y");
    // It has said so by now: one after the other.
    let said = std::fs::read_to_string(complaints.path()).unwrap();
    assert_eq!(said.lines().count(), refused);
    let first = "a connection was refused: select() takes descriptors below 1024 only, not 1024";
    assert!(said.starts_with(first), "{said}");
}

#[test]
fn usage() {
    let output = example("server_models").args(["epoll", "dance"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("usage: server_models process|"));
}
