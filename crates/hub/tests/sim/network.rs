//! The simulated network: streams keep their order and lose their connections, datagrams keep nothing.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use warren_hub::sim::{self, Node, World};
use warren_hub::{sleep, spawn};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A node that sends back what it gets, to all who connect at port 7.
fn echo(world: &World, name: &str) -> Node {
    let node = world.machine(name);
    start_echo(&node);
    node
}

fn start_echo(node: &Node) {
    node.start(|| {
        let listener = TcpListener::bind("0.0.0.0:7").unwrap();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
}

/// Waits for the server to listen.
fn connect(to: &str) -> TcpStream {
    loop {
        match TcpStream::connect(to) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => sleep(MS),
            connected => return connected.unwrap(),
        }
    }
}

fn exchange(stream: &TcpStream, data: &[u8]) -> std::io::Result<()> {
    let (mut reader, mut writer) = (stream, stream);
    writer.write_all(data)?;
    let mut back = vec![0; data.len()];
    reader.read_exact(&mut back)?;
    assert_eq!(back, data);
    Ok(())
}

#[test]
fn streams_deliver_all_in_order_and_end() {
    sim::check(0..100, |world| {
        echo(world, "echo");
        let mut data = vec![0; 1 + world.random().index(300_000)];
        world.random().fill(&mut data);
        let stream = connect("echo:7");
        let mut writer = stream.try_clone().unwrap();
        let sent = data.clone();
        let writing = spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).unwrap();
        assert!(back == data, "{} of {} bytes came back", back.len(), data.len());
        writing.join().unwrap();
    });
}

#[test]
fn a_window_that_is_full_makes_the_writer_wait() {
    sim::check(0..20, |world| {
        world.net().window(1000);
        let (written, read) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let reading = read.clone();
        world.node("lazy", move || {
            let (mut stream, _) = TcpListener::bind("0.0.0.0:7").unwrap().accept().unwrap();
            sleep(SECOND);
            reading.set(true);
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        });
        let mut stream = connect("lazy:7");
        let (count, reading) = (written.clone(), read.clone());
        let writer = spawn(move || {
            for _ in 0..40 {
                stream.write_all(&[0; 100]).unwrap();
                count.set(count.get() + 100);
                assert!(reading.get() || count.get() <= 1000);
            }
        });
        writer.join().unwrap();
        assert_eq!(written.get(), 4000);
    });
}

#[test]
fn nobody_listening_refuses_and_nobody_there_is_unreachable() {
    sim::check(0..20, |world| {
        let node = world.node("deaf", || sleep(10 * SECOND));
        let error = TcpStream::connect("deaf:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(TcpStream::connect("nobody:80").unwrap_err().kind(), ErrorKind::NotFound);
        let error = TcpStream::connect("10.9.9.9:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        let before = world.now();
        node.crash();
        let error = TcpStream::connect("deaf:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(world.now() - before >= 30 * SECOND);
        let quick = TcpStream::connect_timeout("deaf:80", SECOND);
        assert_eq!(quick.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn refusing_can_be_switched_on_and_off() {
    sim::check(0..10, |world| {
        let node = echo(world, "echo");
        exchange(&connect("echo:7"), b"one").unwrap();
        world.net().refuse(&node, true);
        let error = TcpStream::connect("echo:7").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        world.net().refuse(&node, false);
        exchange(&connect("echo:7"), b"two").unwrap();
    });
}

#[test]
fn a_node_without_descriptors_accepts_later() {
    sim::check(0..10, |world| {
        let node = world.node("server", || {
            let listener = TcpListener::bind("0.0.0.0:7").unwrap();
            let mut refused = 0;
            loop {
                match listener.accept() {
                    Ok((mut stream, _)) => stream.write_all(&[refused]).unwrap(),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(24), "EMFILE");
                        refused = 1;
                        sleep(100 * MS);
                    }
                }
            }
        });
        let first = |stream: &TcpStream| {
            let mut byte = [0];
            let mut stream = stream;
            stream.read_exact(&mut byte).unwrap();
            byte
        };
        assert_eq!(first(&connect("server:7")), [0]);
        world.net().out_of_descriptors(&node, true);
        let stream = connect("server:7");
        sleep(SECOND);
        world.net().out_of_descriptors(&node, false);
        assert_eq!(first(&stream), [1]);
    });
}

#[test]
fn half_of_a_connection_may_be_closed() {
    sim::check(0..30, |world| {
        world.node("late", || {
            let (mut stream, _) = TcpListener::bind("0.0.0.0:7").unwrap().accept().unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            sleep(SECOND);
            stream.write_all(all.to_uppercase().as_bytes()).unwrap();
        });
        let mut stream = connect("late:7");
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "QUESTION");
    });
}

#[test]
fn a_partition_holds_streams_back_until_it_heals() {
    sim::check(0..50, |world| {
        let node = echo(world, "echo");
        let stream = connect("echo:7");
        exchange(&stream, b"before").unwrap();
        let healed = Rc::new(Cell::new(false));
        let here = world.this_node();
        world.net().partition(&here, &node);
        let (other, seen) = (world.clone(), healed.clone());
        let healer = spawn(move || {
            sleep(10 * SECOND);
            seen.set(true);
            other.net().heal(&here, &node);
        });
        exchange(&stream, &[7; 5000]).unwrap();
        assert!(healed.get(), "nothing comes through a partition");
        healer.join().unwrap();
    });
}

#[test]
fn a_partition_that_does_not_heal_times_the_sender_out() {
    sim::check(0..30, |world| {
        let node = echo(world, "echo");
        let stream = connect("echo:7");
        world.net().give_up_after(5 * SECOND).isolate(&node);
        let before = world.now();
        let error = exchange(&stream, b"anybody?").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(world.now() - before >= 5 * SECOND);
        assert!(exchange(&stream, b"anybody?").is_err(), "it does not come back");
        world.net().heal_all();
        exchange(&connect("echo:7"), b"again").unwrap();
    });
}

#[test]
fn a_crashed_peer_is_silent_until_it_is_back() {
    sim::check(0..50, |world| {
        let node = echo(world, "echo");
        let stream = connect("echo:7");
        exchange(&stream, b"before").unwrap();
        node.crash();
        stream.set_read_timeout(Some(SECOND));
        assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        (&stream).write_all(b"lost").unwrap();
        sleep(SECOND);
        start_echo(&node);
        let error = (&stream).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!((&stream).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        exchange(&connect("echo:7"), b"after").unwrap();
    });
}

#[test]
fn a_killed_program_leaves_a_system_that_closes_its_connections() {
    sim::check(0..50, |world| {
        let node = echo(world, "echo");
        let stream = connect("echo:7");
        exchange(&stream, b"before").unwrap();
        node.kill();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0, "the end of the stream");
        // The first write finds out, the next one tells.
        (&stream).write_all(b"x").unwrap();
        sleep(SECOND);
        assert!((&stream).write_all(b"x").is_err());
        let error = TcpStream::connect("echo:7").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connections_are_lost_at_any_point() {
    let (lost, kept) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (losses, keeps) = (lost.clone(), kept.clone());
    sim::check(0..100, move |world| {
        echo(world, "echo");
        world.net().cuts(0.01);
        for _ in 0..10 {
            let Ok(stream) = TcpStream::connect("echo:7") else { continue };
            let count = match exchange(&stream, &[1; 20_000]) {
                Ok(()) => &keeps,
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                        "{error}"
                    );
                    &losses
                }
            };
            count.set(count.get() + 1);
        }
    });
    assert!(lost.get() > 50 && kept.get() > 50, "{} lost, {} kept", lost.get(), kept.get());
}

#[test]
fn connections_are_cut_on_demand() {
    sim::check(0..20, |world| {
        let node = echo(world, "echo");
        let stream = connect("echo:7");
        exchange(&stream, b"before").unwrap();
        world.net().cut(&world.this_node(), &node);
        let error = (&stream).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn addresses_are_those_of_the_nodes() {
    sim::check(0..10, |world| {
        let here = world.this_node().ip();
        let node = world.node("server", move || {
            let listener = TcpListener::bind("0.0.0.0:0").unwrap();
            let taken = TcpListener::bind(listener.local_addr().unwrap()).unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AddrInUse);
            let foreign = TcpListener::bind("10.9.9.9:1").unwrap_err();
            assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
            let port = listener.local_addr().unwrap().port();
            let own = TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!(own.peer_addr().unwrap(), ([127, 0, 0, 1], port).into());
            assert!(listener.accept().unwrap().1.ip().is_loopback());
            let listener = TcpListener::bind("0.0.0.0:7").unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), here);
        });
        let stream = connect("server:7");
        assert_eq!(stream.peer_addr().unwrap(), (node.ip(), 7).into());
        assert_eq!(stream.local_addr().unwrap().ip(), here);
        node.join();
    });
}

#[test]
fn unix_sockets_are_the_nodes_own() {
    sim::check(0..10, |world| {
        let node = world.node("server", || {
            let listener = UnixListener::bind("/run/socket").unwrap();
            let client = spawn(|| {
                let mut stream = UnixStream::connect("/run/socket").unwrap();
                stream.write_all(b"local").unwrap();
            });
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            client.join().unwrap();
            assert_eq!(text, "local");
        });
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(b"to myself").unwrap();
        drop(one);
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "to myself");
        let error = UnixStream::connect("/run/socket").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "another machine's");
        node.join();
    });
}

/// Counts how often each of 200 numbered datagrams arrives, and whether they overtake each other.
fn datagrams(world: &World) -> (Vec<usize>, bool) {
    world.net().latency(MS..=20 * MS);
    let arrived = Rc::new(RefCell::new(Vec::new()));
    let own = arrived.clone();
    let node = world.node("sink", move || {
        let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
        let mut buffer = [0; 16];
        loop {
            let (count, _) = socket.recv_from(&mut buffer).unwrap();
            let number = u64::from_le_bytes(buffer[..count].try_into().unwrap());
            own.borrow_mut().push(number);
        }
    });
    sleep(MS);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for number in 0..200u64 {
        socket.send_to(&number.to_le_bytes(), "sink:9").unwrap();
        sleep(Duration::from_millis(1));
    }
    sleep(SECOND);
    node.kill();
    let arrived = arrived.borrow();
    let counts = (0..200).map(|number| arrived.iter().filter(|&&one| one == number).count());
    (counts.collect(), !arrived.is_sorted())
}

#[test]
fn datagrams_arrive_each_in_its_own_time() {
    sim::check(0..10, |world| {
        let (counts, overtaken) = datagrams(world);
        assert_eq!(counts, [1; 200]);
        assert!(overtaken);
    });
}

#[test]
fn datagrams_get_lost_and_double() {
    sim::check(0..10, |world| {
        world.net().loss(0.2).duplication(0.2);
        let (counts, _) = datagrams(world);
        let lost = counts.iter().filter(|&&count| count == 0).count();
        let doubled = counts.iter().filter(|&&count| count == 2).count();
        assert!(lost > 5 && doubled > 5, "{lost} lost, {doubled} twice");
    });
}
