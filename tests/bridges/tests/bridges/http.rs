//! hyper on hub sockets, hub timers and fibers: HTTP/1 and HTTP/2, both sides, no tokio runtime.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, client, server};
use warren_hub::bridge::hyper::{HubExecutor, HubTimer};
use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::sync::Event;
use warren_hub::{JoinHandle, future, join_all, run, sleep, spawn};

use super::noise;

/// Where requests wait until as many as expected have come.
struct Meeting {
    missing: Cell<usize>,
    complete: Event,
}

impl Meeting {
    fn attend(&self) {
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0 {
            self.complete.set();
        }
        self.complete.wait();
    }
}

/// `POST /echo` gives the body back, `GET /meet` answers when others have come.
async fn serve(
    request: Request<Incoming>,
    meeting: Rc<Meeting>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/echo") => {
            let body = request.into_body().collect().await;
            *response.body_mut() = Full::new(body.unwrap().to_bytes());
        }
        (&Method::GET, "/meet") => {
            // Code that parks, on a fiber of its own.
            spawn(move || meeting.attend()).await.unwrap();
            *response.body_mut() = Full::new("met".into());
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}

/// Speaks HTTP/1 on a port of its own.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// For so many that meet.
    pub(crate) fn start(meeting: usize) -> Self {
        Self::start_with(meeting, server::conn::http1::Builder::new())
    }

    fn start_with(meeting: usize, http: server::conn::http1::Builder) -> Self {
        Self::listen(meeting, move |stream, meeting| {
            let http = http.clone();
            // A client that breaks off is not the server's fault.
            future::spawn(async move {
                let service = service_fn(move |request| serve(request, meeting.clone()));
                drop(http.serve_connection(stream, service).await);
            });
        })
    }

    /// As [`start`](Self::start), with HTTP/2.
    fn start_http2(meeting: usize) -> Self {
        Self::listen(meeting, |stream, meeting| {
            let mut http = server::conn::http2::Builder::new(HubExecutor);
            http.timer(HubTimer).keep_alive_interval(Duration::from_millis(10));
            future::spawn(async move {
                let service = service_fn(move |request| serve(request, meeting.clone()));
                drop(http.serve_connection(stream, service).await);
            });
        })
    }

    fn listen(meeting: usize, connection: impl Fn(TcpStream, Rc<Meeting>) + 'static) -> Self {
        let meeting = Rc::new(Meeting { missing: Cell::new(meeting), complete: Event::new() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = spawn(move || {
            for stream in listener.incoming().flatten() {
                connection(stream, meeting.clone());
            }
        });
        Self { addr, accepting }
    }

    pub(crate) fn stop(self) {
        self.accepting.kill();
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Full::new(body))
        .unwrap()
}

#[test]
fn http1_keeps_a_connection_for_many_requests() {
    run(|| {
        let server = Server::start(0);
        let stream = TcpStream::connect(server.addr).unwrap();
        let (mut sender, connection) =
            future::wait(client::conn::http1::handshake(stream)).unwrap();
        let connection = future::spawn(connection);
        for size in [0, 10, 1 << 20] {
            let body = Bytes::from(noise(size));
            let sent = sender.send_request(request(Method::POST, "/echo", body.clone()));
            let response = future::wait(sent).unwrap();
            assert_eq!(response.status(), 200);
            let echoed = future::wait(response.into_body().collect()).unwrap().to_bytes();
            assert!(echoed == body);
            future::wait(sender.ready()).unwrap();
        }
        let sent = sender.send_request(request(Method::GET, "/else", Bytes::new()));
        assert_eq!(future::wait(sent).unwrap().status(), 404);
        drop(sender);
        connection.join().unwrap().unwrap();
        server.stop();
    });
}

#[test]
fn http1_serves_many_connections_at_once() {
    run(|| {
        const CLIENTS: usize = 30;
        let server = Server::start(CLIENTS);
        let addr = server.addr;
        let clients = (0..CLIENTS).map(|_| {
            spawn(move || {
                // One future for all: the connection, the request and the answer.
                future::wait(async move {
                    let stream = spawn(move || TcpStream::connect(addr)).await.unwrap().unwrap();
                    let (mut sender, connection) =
                        client::conn::http1::handshake(stream).await.unwrap();
                    let _connection = future::spawn(connection);
                    let sent = sender.send_request(request(Method::GET, "/meet", Bytes::new()));
                    let body = sent.await.unwrap().into_body().collect().await.unwrap();
                    assert_eq!(body.to_bytes(), "met");
                });
            })
        });
        for ended in join_all(clients) {
            ended.unwrap();
        }
        server.stop();
    });
}

#[test]
fn http1_drops_a_client_that_does_not_finish_its_header() {
    run(|| {
        let mut http = server::conn::http1::Builder::new();
        http.timer(HubTimer).header_read_timeout(Duration::from_millis(50));
        let server = Server::start_with(0, http);
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.write_all(b"GET /meet HTTP/1.1\r\nhost: lo").unwrap();
        // hyper's timeout goes by the hub's clock. The server says why, or just closes.
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        server.stop();
    });
}

#[test]
fn a_killed_connection_drops_what_it_was_about() {
    run(|| {
        // Two are expected, one comes: the handler waits.
        let server = Server::start(2);
        let stream = TcpStream::connect(server.addr).unwrap();
        let (mut sender, connection) =
            future::wait(client::conn::http1::handshake(stream)).unwrap();
        let connection = future::spawn(connection);
        let waiting = spawn(move || {
            let sent = sender.send_request(request(Method::GET, "/meet", Bytes::new()));
            future::wait(sent).map(|response| response.status())
        });
        sleep(Duration::from_millis(10));
        assert!(!waiting.is_finished());
        connection.kill();
        assert!(connection.join().unwrap_err().is_killed());
        // The request ends with its connection.
        assert!(waiting.join().unwrap().is_err());
        server.stop();
    });
}

#[test]
fn http2_carries_many_requests_at_once() {
    run(|| {
        const REQUESTS: usize = 50;
        let server = Server::start_http2(REQUESTS / 2);
        let stream = TcpStream::connect(server.addr).unwrap();
        let mut http = client::conn::http2::Builder::new(HubExecutor);
        http.timer(HubTimer).keep_alive_interval(Duration::from_millis(10));
        let (sender, connection) = future::wait(http.handshake(stream)).unwrap();
        let connection = future::spawn(connection);
        let requests = (0..REQUESTS).map(|number| {
            let mut sender = sender.clone();
            spawn(move || {
                if number % 2 == 0 {
                    let uri = "http://localhost/meet";
                    let sent = sender.send_request(request(Method::GET, uri, Bytes::new()));
                    assert_eq!(future::wait(sent).unwrap().status(), 200);
                } else {
                    let body = Bytes::from(noise(50_000 + number));
                    let uri = "http://localhost/echo";
                    let sent = sender.send_request(request(Method::POST, uri, body.clone()));
                    let answer = future::wait(sent).unwrap().into_body();
                    assert!(future::wait(answer.collect()).unwrap().to_bytes() == body);
                }
            })
        });
        for ended in join_all(requests) {
            ended.unwrap();
        }
        // The keep-alive pings of both sides have been answered meanwhile.
        sleep(Duration::from_millis(50));
        assert!(!connection.is_finished());
        drop(sender);
        connection.join().unwrap().unwrap();
        server.stop();
    });
}
