//! The standard library's sockets on one hub.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use support::AT_ONCE;
use warren_hub::{JoinError, TimedOut, join_all, run, sleep, spawn, with_timeout, yield_now};
use warren_patch::patch_all;

mod support;

/// Runs `body` on a hub, patched.
fn patched<T: 'static>(body: impl FnOnce() -> T + 'static) -> T {
    support::watchdog();
    patch_all();
    run(body)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn a_hundred_clients_wait_at_once() {
    // Each answer waits until all requests are there: one that blocks the hub would hold up the others for ever.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let all_there = Arc::new(Barrier::new(AT_ONCE));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, all_there) = (stream.unwrap(), all_there.clone());
            thread::spawn(move || {
                let mut request = [0; 4];
                stream.read_exact(&mut request).unwrap();
                all_there.wait();
                stream.write_all(&request).unwrap();
            });
        }
    });
    patched(move || {
        let clients = (0..AT_ONCE as u32).map(|n| {
            spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.write_all(&n.to_be_bytes()).unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                u32::from_be_bytes(answer)
            })
        });
        let answers = join_all(clients).into_iter().map(Result::unwrap);
        assert!(answers.eq(0..AT_ONCE as u32));
    });
}

#[test]
fn server_and_clients_share_a_thread() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    io::copy(&mut stream, &mut writer).unwrap();
                });
            }
        });
        let clients = (0..20_u8).map(|n| {
            spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                let text = vec![n; 1000];
                stream.write_all(&text).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut echo = Vec::new();
                stream.read_to_end(&mut echo).unwrap();
                assert_eq!(echo, text);
            })
        });
        assert!(join_all(clients).iter().all(Result::is_ok));
    });
}

#[test]
fn a_blocking_write_writes_all_however_slow_the_reader_is() {
    patched(|| {
        let (mut client, mut server) = pair();
        let size = 8 << 20;
        let writing = spawn(move || client.write(&vec![7; size]).unwrap());
        yield_now();
        assert!(!writing.is_finished());
        let mut bytes = vec![0; size];
        server.read_exact(&mut bytes).unwrap();
        // In one call, as without the patch.
        assert_eq!(writing.join().unwrap(), size);
        assert!(bytes.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn vectored_writes_are_completed_in_order() {
    patched(|| {
        let (mut client, mut server) = pair();
        let writing = spawn(move || {
            let parts: Vec<Vec<u8>> = (0..20).map(|n| vec![n; 1 << 18]).collect();
            let slices: Vec<io::IoSlice<'_>> =
                parts.iter().map(|part| io::IoSlice::new(part)).collect();
            client.write_vectored(&slices).unwrap()
        });
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).unwrap();
        assert_eq!(writing.join().unwrap(), 20 << 18);
        assert!(bytes.is_sorted());
        assert_eq!(bytes.len(), 20 << 18);
    });
}

#[test]
fn what_is_non_blocking_stays_so() {
    patched(|| {
        let (mut client, server) = pair();
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let fd = server.as_raw_fd();
        // SAFETY: a buffer of the size that is given.
        let received = unsafe { libc::recv(fd, [0_u8].as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) };
        assert_eq!(received, -1);
        assert_eq!(io::Error::last_os_error().kind(), ErrorKind::WouldBlock);
        // And what is blocking has not been made anything else.
        // SAFETY: takes no pointers.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK, 0);
    });
}

#[test]
fn timeouts_of_sockets_are_kept() {
    patched(|| {
        let (mut client, _server) = pair();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let started = Instant::now();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(started.elapsed() >= Duration::from_millis(20));
        client.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let full = client.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn errors_of_connecting_arrive() {
    patched(|| {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = TcpStream::connect(addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = TcpStream::connect_timeout(&addr, Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connecting_with_a_timeout_works() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut client = TcpStream::connect_timeout(&addr, Duration::from_secs(5)).unwrap();
        listener.accept().unwrap().0.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn a_full_queue_of_a_unix_listener_is_waited_for() {
    patched(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: takes no pointers.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let clients: Vec<_> = (0..5)
            .map(|_| {
                let path = path.clone();
                spawn(move || UnixStream::connect(path).unwrap())
            })
            .collect();
        sleep(Duration::from_millis(5));
        assert!(clients.iter().any(|client| !client.is_finished()));
        let accepted: Vec<_> = (0..5).map(|_| listener.accept().unwrap()).collect();
        assert!(join_all(clients).iter().all(Result::is_ok));
        drop(accepted);
    });
}

#[test]
fn fibers_that_accept_share_a_listener() {
    patched(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let servers: Vec<_> = (0..10)
            .map(|_| {
                let listener = listener.clone();
                spawn(move || listener.accept().unwrap())
            })
            .collect();
        yield_now();
        for _ in 0..10 {
            TcpStream::connect(addr).unwrap();
            yield_now();
        }
        assert!(join_all(servers).iter().all(Result::is_ok));
    });
}

#[test]
fn datagrams_come_one_by_one() {
    patched(|| {
        let (ours, theirs) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = ours.local_addr().unwrap();
        let from = theirs.local_addr().unwrap();
        let receiving = spawn(move || {
            let mut buffer = [0; 10];
            let first = ours.recv_from(&mut buffer).unwrap();
            ours.connect(first.1).unwrap();
            (first, ours.recv(&mut buffer).unwrap())
        });
        yield_now();
        theirs.send_to(b"abc", to).unwrap();
        sleep(Duration::from_millis(2));
        theirs.connect(to).unwrap();
        theirs.send(b"de").unwrap();
        assert_eq!(receiving.join().unwrap(), ((3, from), 2));
    });
}

#[test]
fn a_full_unix_datagram_socket_is_waited_for() {
    patched(|| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let sending =
            spawn(move || (0..1000).for_each(|_| assert_eq!(ours.send(&[1; 1000]).unwrap(), 1000)));
        let mut buffer = [0; 1000];
        for _ in 0..1000 {
            assert_eq!(theirs.recv(&mut buffer).unwrap(), 1000);
        }
        sending.join().unwrap();
    });
}

#[test]
fn waiting_for_all_bytes_waits_for_all() {
    patched(|| {
        let (client, mut server) = pair();
        let reading = spawn(move || {
            let mut buffer = [0_u8; 6];
            let (fd, place) = (client.as_raw_fd(), buffer.as_mut_ptr().cast());
            // SAFETY: a buffer of the size that is given.
            let received = unsafe { libc::recv(fd, place, 6, libc::MSG_WAITALL) };
            (received, buffer)
        });
        for part in [b"ab", b"cd", b"ef"] {
            server.write_all(part).unwrap();
            sleep(Duration::from_millis(1));
        }
        assert_eq!(reading.join().unwrap(), (6, *b"abcdef"));
    });
}

#[test]
fn closing_wakes_a_reader() {
    patched(|| {
        let (client, _server) = pair();
        let fd = client.as_raw_fd();
        let reading = spawn(move || {
            // SAFETY: a buffer of the size that is given; the descriptor is closed by the other fiber.
            let received = unsafe { libc::recv(fd, [0_u8].as_mut_ptr().cast(), 1, 0) };
            (received, io::Error::last_os_error().raw_os_error())
        });
        yield_now();
        drop(client);
        assert_eq!(reading.join().unwrap(), (-1, Some(libc::EBADF)));
    });
}

#[test]
fn a_killed_fiber_gets_an_error_and_then_ends() {
    patched(|| {
        let (mut client, _server) = pair();
        let reading = spawn(move || {
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
            sleep(Duration::from_secs(3600));
        });
        yield_now();
        reading.kill();
        assert!(matches!(reading.join(), Err(JoinError::Killed)));
    });
}

#[test]
fn a_timeout_around_blocking_calls_ends_them() {
    patched(|| {
        let (mut client, _server) = pair();
        let result = with_timeout(Duration::from_millis(5), move || {
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            sleep(Duration::from_secs(3600));
        });
        assert_eq!(result, Err(TimedOut));
    });
}

#[test]
fn a_destructor_of_a_killed_fiber_does_not_wait() {
    struct Farewell(TcpStream);
    impl Drop for Farewell {
        fn drop(&mut self) {
            let error = self.0.read(&mut [0]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        }
    }
    patched(|| {
        let (client, _server) = pair();
        let fiber = spawn(move || {
            let _farewell = Farewell(client);
            sleep(Duration::from_secs(3600));
        });
        yield_now();
        fiber.kill();
        assert!(fiber.join().is_err());
    });
}

#[test]
fn many_calls_that_need_not_wait_let_others_run() {
    patched(|| {
        let (mut client, mut server) = pair();
        let other = spawn(|| ());
        for _ in 0..200 {
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
        }
        assert!(other.is_finished());
    });
}

#[test]
fn threads_without_a_hub_block_as_ever() {
    support::watchdog();
    patch_all();
    let (mut client, mut server) = pair();
    let reading = thread::spawn(move || {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        byte[0]
    });
    server.write_all(b"x").unwrap();
    assert_eq!(reading.join().unwrap(), b'x');
}

#[test]
fn errno_of_a_success_is_what_it_was() {
    patched(|| {
        let (client, mut server) = pair();
        let reading = spawn(move || {
            // SAFETY: this thread's errno, and a buffer of the size that is given.
            unsafe {
                *libc::__errno_location() = 1234;
                let received = libc::recv(client.as_raw_fd(), [0_u8].as_mut_ptr().cast(), 1, 0);
                (received, *libc::__errno_location())
            }
        });
        sleep(Duration::from_millis(1));
        server.write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap(), (1, 1234));
    });
}

#[test]
fn hubs_that_share_a_listener_do_not_block_on_each_other() {
    support::watchdog();
    patch_all();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let hubs: Vec<_> = (0..3)
        .map(|_| {
            let (listener, accepted) = (listener.try_clone().unwrap(), accepted.clone());
            thread::spawn(move || {
                run(move || {
                    let counted = accepted.clone();
                    spawn(move || {
                        for stream in listener.incoming() {
                            // The end of the hub kills this fiber.
                            let Ok(_) = stream else { return };
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    // Goes on only if the hub does.
                    while accepted.load(Ordering::Relaxed) < 100 {
                        sleep(Duration::from_millis(1));
                    }
                });
            })
        })
        .collect();
    let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(addr).unwrap()).collect();
    for hub in hubs {
        hub.join().unwrap();
    }
    assert_eq!(accepted.load(Ordering::Relaxed), clients.len());
}
