//! Datagrams, on the network and between processes.

mod support;

use std::io;
use std::net::{Ipv4Addr, Shutdown};
use std::rc::Rc;
use std::time::Duration;

use support::run;
use warren_hub::net::{UdpSocket, UnixDatagram};
use warren_hub::{JoinError, join_all, sleep, spawn, with_timeout, yield_now};

const SHORT: Duration = Duration::from_millis(5);

fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

#[test]
fn datagrams_keep_their_bounds_and_senders() {
    run(|| {
        let (server, client) = (udp(), udp());
        let addr = server.local_addr().unwrap();
        assert_eq!(client.send_to(b"one", addr).unwrap(), 3);
        client.send_to(b"", addr).unwrap();
        client.send_to(b"three", addr).unwrap();
        let mut buffer = [0; 100];
        let from = client.local_addr().unwrap();
        assert_eq!(server.peek_from(&mut buffer).unwrap(), (3, from));
        assert_eq!(server.recv_from(&mut buffer).unwrap(), (3, from));
        assert_eq!(server.recv_from(&mut buffer).unwrap(), (0, from));
        // What does not fit is lost.
        assert_eq!(server.recv_from(&mut buffer[..2]).unwrap(), (2, from));
        assert_eq!(&buffer[..2], b"th");
        assert!(with_timeout(SHORT, || server.recv_from(&mut [0; 8])).is_err());
    });
}

#[test]
fn the_largest_datagram_passes_and_a_larger_one_is_refused() {
    run(|| {
        let (server, client) = (udp(), udp());
        client.connect(server.local_addr().unwrap()).unwrap();
        let data = vec![7; 65_507];
        assert_eq!(client.send(&data).unwrap(), data.len());
        let mut buffer = vec![0; 65_536];
        assert_eq!(server.recv(&mut buffer).unwrap(), data.len());
        assert!(buffer[..data.len()] == data[..]);
        let error = client.send(&vec![0; 65_508]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MSGSIZE.raw_os_error()));
        client.send(b"still usable").unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap(), 12);
    });
}

#[test]
fn a_peer_that_is_gone_is_told_to_a_connected_socket() {
    run(|| {
        let client = udp();
        let gone = udp();
        client.connect(gone.local_addr().unwrap()).unwrap();
        drop(gone);
        client.send(b"anyone?").unwrap();
        let error = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn receiving_times_out_and_can_be_killed_and_repeated() {
    run(|| {
        let socket = Rc::new(udp());
        socket.set_read_timeout(Some(SHORT));
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        socket.set_read_timeout(None);
        let reader = spawn({
            let socket = socket.clone();
            move || socket.recv(&mut [0; 8]).unwrap()
        });
        yield_now();
        reader.kill();
        assert!(matches!(reader.join(), Err(JoinError::Killed)));
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
    });
}

#[test]
fn many_fibers_share_a_socket() {
    run(|| {
        let server = Rc::new(udp());
        let addr = server.local_addr().unwrap();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let server = server.clone();
                spawn(move || {
                    let mut buffer = [0; 16];
                    loop {
                        let (count, peer) = server.recv_from(&mut buffer).unwrap();
                        server.send_to(&buffer[..count], peer).unwrap();
                    }
                })
            })
            .collect();
        let clients = (0..20u8).map(|n| {
            spawn(move || {
                let client = udp();
                client.connect(addr).unwrap();
                client.send(&[n]).unwrap();
                let mut answer = [0; 16];
                assert_eq!(client.recv(&mut answer).unwrap(), 1);
                assert_eq!(answer[0], n);
            })
        });
        for result in join_all(clients) {
            result.unwrap();
        }
        for worker in workers {
            worker.kill();
        }
    });
}

#[test]
fn options_are_set_and_told() {
    run(|| {
        let socket = udp();
        assert!(!socket.broadcast().unwrap());
        socket.set_broadcast(true).unwrap();
        assert!(socket.broadcast().unwrap());
        socket.set_ttl(9).unwrap();
        assert_eq!(socket.ttl().unwrap(), 9);
        socket.set_multicast_ttl_v4(3).unwrap();
        assert_eq!(socket.multicast_ttl_v4().unwrap(), 3);
        socket.set_multicast_loop_v4(false).unwrap();
        assert!(!socket.multicast_loop_v4().unwrap());
        socket.set_recv_buffer_size(16_384).unwrap();
        assert!(socket.recv_buffer_size().unwrap() >= 16_384);
        let clone = socket.try_clone().unwrap();
        assert_eq!(clone.local_addr().unwrap(), socket.local_addr().unwrap());
        assert!(socket.peer_addr().is_err());
    });
}

#[test]
fn groups_are_joined_and_left() {
    run(|| {
        let group = Ipv4Addr::new(239, 255, 77, 3);
        let receiver = UdpSocket::bind("0.0.0.0:0").unwrap();
        receiver.join_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
        let sender = udp();
        sender.set_multicast_if_v4(Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(sender.multicast_if_v4().unwrap(), Ipv4Addr::LOCALHOST);
        let port = receiver.local_addr().unwrap().port();
        sender.send_to(b"all", (group, port)).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 3);
        receiver.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
        assert!(receiver.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).is_err());
        assert!(receiver.join_multicast_v4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).is_err());
    });
}

#[test]
fn sockets_may_share_an_address() {
    run(|| {
        let one = UdpSocket::bind_shared("127.0.0.1:0").unwrap();
        let addr = one.local_addr().unwrap();
        let other = UdpSocket::bind_shared(addr).unwrap();
        assert!(UdpSocket::bind(addr).is_err());
        udp().send_to(b"either", addr).unwrap();
        let got = |socket: UdpSocket| spawn(move || socket.recv(&mut [0; 8]).is_ok());
        let (one, other) = (got(one), got(other));
        while !one.is_finished() && !other.is_finished() {
            sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn unix_datagrams_wait_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    run(move || {
        let server = UnixDatagram::bind(&path).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        // More than the receiver's queue holds: connected, and by path.
        let by_path = spawn({
            let path = path.clone();
            move || {
                for n in 0..600u32 {
                    assert_eq!(client.send_to(&n.to_le_bytes(), &path).unwrap(), 4);
                }
            }
        });
        let mut buffer = [0; 8];
        yield_now();
        for n in 0..600u32 {
            assert_eq!(server.recv(&mut buffer).unwrap(), 4);
            assert_eq!(&buffer[..4], n.to_le_bytes());
        }
        by_path.join().unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(&path).unwrap();
        let connected = spawn(move || {
            for n in 0..600u32 {
                client.send(&n.to_le_bytes()).unwrap();
            }
        });
        yield_now();
        for n in 0..600u32 {
            server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..4], n.to_le_bytes());
        }
        connected.join().unwrap();
    });
}

#[test]
fn unix_datagrams_time_out_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    run(move || {
        let _server = UnixDatagram::bind(&path).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.set_write_timeout(Some(SHORT));
        let error = loop {
            if let Err(error) = client.send_to(b"x", &path) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (one, other) = UnixDatagram::pair().unwrap();
        one.set_read_timeout(Some(SHORT));
        assert_eq!(one.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        other.send(b"x").unwrap();
        assert_eq!(one.peek(&mut [0]).unwrap(), 1);
        assert_eq!(one.recv(&mut [0]).unwrap(), 1);
        one.shutdown(Shutdown::Both).unwrap();
        assert!(other.send(b"x").is_err());
        assert!(client.send_to(b"x", folder.path().join("nobody")).is_err());
    });
}
