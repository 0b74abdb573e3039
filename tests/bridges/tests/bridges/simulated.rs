//! Unmodified crates in a simulated world: the network and the clock are the simulation's, and the seed decides.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warren_hub::bridge::hyper::{HubExecutor, HubTimer};
use warren_hub::bridge::tokio as sidecar;
use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::{future, join_all, sim, sleep, spawn};

/// A server on its way up refuses: then once more, a little later.
fn connect(addr: &'static str) -> TcpStream {
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => return stream,
            Err(_) => sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn hyper_speaks_http2_between_simulated_nodes() {
    async fn count(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        future::sleep(Duration::from_secs(60)).await;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok(Response::new(Full::from(body.len().to_string())))
    }
    sim::check(0..5, |world| {
        world.net().latency(Duration::from_millis(1)..=Duration::from_millis(80));
        world.node("server", || {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            for stream in listener.incoming() {
                let mut http = server::conn::http2::Builder::new(HubExecutor);
                http.timer(HubTimer).keep_alive_interval(Duration::from_secs(20));
                // By the system's clock, which no seed decides.
                http.auto_date_header(false);
                let connection = http.serve_connection(stream.unwrap(), service_fn(count));
                future::spawn(async { drop(connection.await) });
            }
        });
        let mut http = client::conn::http2::Builder::new(HubExecutor);
        http.timer(HubTimer);
        let (sender, connection) = future::wait(http.handshake(connect("server:80"))).unwrap();
        future::spawn(connection);
        let requests = (0..5).map(|number| {
            let mut sender = sender.clone();
            spawn(move || {
                let size = 30_000 * number;
                let request =
                    Request::post("http://server/").body(Full::new(Bytes::from(vec![1; size])));
                let answer = future::wait(sender.send_request(request.unwrap())).unwrap();
                let body = future::wait(answer.into_body().collect()).unwrap().to_bytes();
                assert_eq!(body, size.to_string());
            })
        });
        for ended in join_all(requests) {
            ended.unwrap();
        }
        assert!(world.now() >= Duration::from_secs(60), "a minute, in no time");
    });
}

#[test]
fn tokios_traits_work_between_simulated_nodes() {
    sim::check(0..5, |world| {
        world.node("echo", || {
            let listener = TcpListener::bind("0.0.0.0:7").unwrap();
            for stream in listener.incoming() {
                future::spawn(async {
                    let (mut reader, mut writer) = tokio::io::split(stream.unwrap());
                    tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                    writer.shutdown().await.unwrap();
                });
            }
        });
        let (mut reader, mut writer) = tokio::io::split(connect("echo:7"));
        let sent = super::noise(200_000);
        let mut got = Vec::new();
        future::wait(async {
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
        });
        assert!(sent == got);
    });
}

#[test]
fn a_real_thread_is_refused_in_a_simulation() {
    let outcome = sim::run(1, |_| {
        let refused = catch_unwind(AssertUnwindSafe(|| sidecar::run(|| async {})));
        *refused.unwrap_err().downcast::<&str>().unwrap()
    });
    assert!(outcome.value.contains("simulation's seed"), "{}", outcome.value);
}
