//! Sockets on fibers.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::{Duration, Instant};

use warren_hub::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use warren_hub::{JoinError, join_all, run, sleep, spawn, with_timeout, yield_now};

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

#[test]
fn many_clients_are_echoed_at_once() {
    run(|| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        let clients = (0..50u8).map(|n| {
            spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                for round in 0..10 {
                    stream.write_all(&[n, round]).unwrap();
                    let mut answer = [0; 2];
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, [n, round]);
                }
            })
        });
        for result in join_all(clients) {
            result.unwrap();
        }
    });
}

#[test]
fn a_large_write_waits_for_its_reader_and_arrives_whole() {
    run(|| {
        let (mut client, mut server) = pair().unwrap();
        let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert!(got == expected);
        writer.join().unwrap();
    });
}

#[test]
fn one_fiber_reads_while_another_writes() {
    run(|| {
        let (client, server) = pair().unwrap();
        let client = Rc::new(client);
        let reader = spawn({
            let client = client.clone();
            move || {
                let mut answer = [0; 4];
                (&*client).read_exact(&mut answer).map(|()| answer)
            }
        });
        yield_now();
        (&*client).write_all(b"ping").unwrap();
        let mut request = [0; 4];
        (&server).read_exact(&mut request).unwrap();
        assert_eq!(&request, b"ping");
        (&server).write_all(b"pong").unwrap();
        assert_eq!(&reader.join().unwrap().unwrap(), b"pong");
    });
}

#[test]
fn reads_time_out_and_can_be_repeated() {
    run(|| {
        let (client, server) = pair().unwrap();
        client.set_read_timeout(Some(SHORT));
        let mut byte = [0];
        let error = (&client).read(&mut byte).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waited = with_timeout(SHORT, || (&server).read(&mut [0]));
        assert!(waited.is_err());
        (&server).write_all(b"x").unwrap();
        assert_eq!((&client).read(&mut byte).unwrap(), 1);
    });
}

#[test]
fn a_fiber_that_waits_for_a_socket_can_be_killed() {
    run(|| {
        let (client, server) = pair().unwrap();
        let reader = spawn(move || (&client).read(&mut [0]));
        yield_now();
        reader.kill();
        assert!(matches!(reader.join(), Err(JoinError::Killed)));
        assert_eq!((&server).read(&mut [0]).unwrap(), 0, "its socket was closed");
    });
}

#[test]
fn a_refused_connection_says_so() {
    run(|| {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = TcpStream::connect(addr).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = TcpStream::connect("127.0.0.1").unwrap_err();
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    });
}

#[test]
fn connecting_can_time_out() {
    run(|| {
        // A listener whose backlog is full answers no one.
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        let error = loop {
            match TcpStream::connect_timeout(addr, Duration::from_millis(50)) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
            assert!(held.len() < 100, "the backlog never fills");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn names_are_resolved_while_others_run() {
    run(|| {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("localhost", port)).unwrap();
    });
}

#[test]
fn unix_sockets_work_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    run(move || {
        let listener = UnixListener::bind(&path).unwrap();
        let server = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"by path").unwrap();
        drop(client);
        assert_eq!(server.join().unwrap(), "by path");
        let (one, mut other) = UnixStream::pair().unwrap();
        (&one).write_all(b"pair").unwrap();
        drop(one);
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "pair");
    });
}

#[test]
fn shutting_down_wakes_the_reader() {
    run(|| {
        let (client, _server) = pair().unwrap();
        let other = client.try_clone().unwrap();
        let reader = spawn(move || (&other).read(&mut [0]));
        yield_now();
        client.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
}

#[test]
fn a_busy_fiber_that_yields_does_not_starve_sockets_and_timers() {
    run(|| {
        let (client, server) = pair().unwrap();
        spawn(|| {
            loop {
                yield_now();
            }
        });
        let reader = spawn(move || (&client).read(&mut [0]));
        let started = Instant::now();
        sleep(SHORT);
        (&server).write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
        assert!(started.elapsed() < LONG);
    });
}
