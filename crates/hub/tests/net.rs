//! Sockets on fibers.

mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use support::run;
use warren_hub::net::{Keepalive, TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use warren_hub::{JoinError, join_all, sleep, spawn, with_timeout, yield_now};

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
        let (addr, _held) = silent_addr();
        let error = TcpStream::connect_timeout(addr, SHORT).unwrap_err();
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

#[test]
fn what_is_peeked_is_read_again() {
    run(|| {
        let (client, mut server) = pair().unwrap();
        let peeking = spawn(move || {
            let mut buffer = [0; 8];
            assert_eq!(server.peek(&mut buffer).unwrap(), 4);
            assert_eq!(server.peek(&mut buffer[..2]).unwrap(), 2);
            assert_eq!(server.read(&mut buffer).unwrap(), 4);
            assert_eq!(&buffer[..4], b"once");
            assert_eq!(server.peek(&mut buffer).unwrap(), 0);
        });
        yield_now();
        (&client).write_all(b"once").unwrap();
        yield_now();
        drop(client);
        peeking.join().unwrap();
    });
}

#[test]
fn halves_go_to_two_fibers_and_come_together_again() {
    run(|| {
        let (client, server) = pair().unwrap();
        let (mut reader, mut writer) = client.into_split();
        let echo = spawn(move || io::copy(&mut &server, &mut &server));
        let reading = spawn(move || {
            let mut answer = [0; 5];
            reader.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
            reader
        });
        writer.write_all(b"hello").unwrap();
        let mut reader = reading.join().unwrap();
        assert_eq!(reader.stream().peer_addr().ok(), writer.stream().peer_addr().ok());
        drop(writer);
        // The end was told, and the other side ends in turn.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        assert_eq!(echo.join().unwrap().unwrap(), 5);

        let (client, mut server) = pair().unwrap();
        let (reader, writer) = client.into_split();
        let (other, _) = pair().unwrap().0.into_split();
        let (_, writer) = other.reunite(writer).unwrap_err();
        let mut client = reader.reunite(writer).unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn the_first_address_that_answers_is_taken() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let refuses = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = TcpStream::connect([refuses, good].as_slice()).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let error = TcpStream::connect([refuses, refuses].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // One that stays silent does not keep the other from being tried.
        let (silent, _held) = silent_addr();
        let stream = TcpStream::connect([silent, good].as_slice()).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let error = TcpStream::connect_timeout([silent, silent].as_slice(), SHORT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let connecting = spawn(move || TcpStream::connect([silent, silent].as_slice()));
        yield_now();
        connecting.kill();
        assert!(matches!(connecting.join(), Err(JoinError::Killed)));
    });
}

/// A listener whose backlog is full: it answers no one. With what keeps it so.
fn silent_addr() -> (SocketAddr, impl Sized) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(addr, Duration::from_millis(50)) {
        held.push(stream);
        assert!(held.len() < 100, "the backlog never fills");
    }
    (addr, (listener, held))
}

#[test]
fn connections_leave_from_the_address_asked_for() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = "127.0.0.7:0".parse().unwrap();
        let stream = TcpStream::connect_from(from, listener.local_addr().unwrap()).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), from.ip());
        assert_eq!(listener.accept().unwrap().1.ip(), from.ip());
        let foreign = "192.0.2.1:0".parse().unwrap();
        let error = TcpStream::connect_from(foreign, listener.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn options_are_set_and_told() {
    run(|| {
        let (stream, _other) = pair().unwrap();
        stream.set_nodelay(true).unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.keepalive().unwrap(), None);
        let keepalive = Keepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(5),
            retries: 4,
        };
        stream.set_keepalive(Some(keepalive)).unwrap();
        assert_eq!(stream.keepalive().unwrap(), Some(keepalive));
        stream.set_keepalive(None).unwrap();
        assert_eq!(stream.keepalive().unwrap(), None);
        stream.set_ttl(33).unwrap();
        assert_eq!(stream.ttl().unwrap(), 33);
        stream.set_user_timeout(Some(Duration::from_secs(9))).unwrap();
        assert_eq!(stream.user_timeout().unwrap(), Some(Duration::from_secs(9)));
        stream.set_send_buffer_size(50_000).unwrap();
        assert!(stream.send_buffer_size().unwrap() >= 50_000);
    });
}

#[test]
fn a_reset_is_told_to_whoever_reads() {
    run(|| {
        let (client, server) = pair().unwrap();
        let reading = spawn(move || (&server).read(&mut [0]));
        yield_now();
        // Closing with a linger time of zero resets.
        client.set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::ZERO));
        drop(client);
        let error = reading.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        // And to whoever writes to one that has gone.
        let (client, mut server) = pair().unwrap();
        drop(client);
        let error = loop {
            if let Err(error) = server.write_all(&[0; 1000]) {
                break error;
            }
        };
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}

#[test]
fn one_direction_may_end_before_the_other() {
    run(|| {
        let (client, mut server) = pair().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        server.write_all(b"still").unwrap();
        let mut answer = [0; 5];
        (&client).read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still");
        assert_eq!((&client).write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_write_without_a_reader_times_out_and_can_be_killed() {
    run(|| {
        let (client, server) = pair().unwrap();
        client.set_write_timeout(Some(SHORT));
        let error = (&client).write_all(&vec![0; 20_000_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        client.set_write_timeout(None);
        let client = Rc::new(client);
        let writing = spawn({
            let client = client.clone();
            move || (&*client).write_all(&vec![0; 20_000_000])
        });
        yield_now();
        writing.kill();
        assert!(matches!(writing.join(), Err(JoinError::Killed)));
        // Once there is room again, it takes more.
        let reading = spawn(move || io::copy(&mut &server, &mut io::sink()));
        (&*client).write_all(b"more").unwrap();
        drop(client);
        assert!(reading.join().unwrap().unwrap() > 4);
    });
}

#[test]
fn many_fibers_read_one_socket_and_each_byte_comes_once() {
    run(|| {
        let (client, server) = pair().unwrap();
        let server = Rc::new(server);
        let readers: Vec<_> = (0..8)
            .map(|_| {
                let server = server.clone();
                spawn(move || {
                    let mut bytes = Vec::new();
                    let mut byte = [0];
                    while (&*server).read(&mut byte).unwrap() == 1 {
                        bytes.push(byte[0]);
                    }
                    bytes
                })
            })
            .collect();
        yield_now();
        for n in 0..200u8 {
            (&client).write_all(&[n]).unwrap();
            if n % 16 == 0 {
                yield_now();
            }
        }
        drop(client);
        let mut all: Vec<u8> =
            join_all(readers).into_iter().flat_map(|bytes| bytes.unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<u8>>());
    });
}

#[test]
fn an_accept_that_waits_can_be_killed() {
    run(|| {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let accepting = spawn({
            let listener = listener.clone();
            move || listener.accept().map(drop)
        });
        yield_now();
        accepting.kill();
        assert!(matches!(accepting.join(), Err(JoinError::Killed)));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap();
        // Another kind of socket on the same hub is not disturbed by any of it.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn a_fiber_whose_socket_is_always_ready_lets_others_run() {
    run(|| {
        let (mut here, there) = UnixStream::pair().unwrap();
        // There is always room to write, and always a byte to read: nothing in this loop ever has to wait.
        let greedy = spawn(move || {
            let mut calls = 0u64;
            let mut byte = [0];
            loop {
                here.write_all(&[1]).unwrap();
                (&there).read_exact(&mut byte).unwrap();
                calls += 1;
                std::hint::black_box(calls);
            }
        });
        // A fiber that is ready, and one that waits for a time, get their turns all the same.
        for _ in 0..10 {
            yield_now();
        }
        sleep(Duration::from_millis(2));
        greedy.kill();
        assert!(matches!(greedy.join(), Err(JoinError::Killed)));
    });
}
