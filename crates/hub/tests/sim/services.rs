//! Small services that must keep a promise, whatever the network does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::fs::{self, File};
use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::server::StreamServer;
use warren_hub::sim::{self, Node, World};
use warren_hub::sync::{Mutex, Queue};
use warren_hub::{JoinHandle, join_all, sleep, spawn, with_timeout};

const MS: Duration = Duration::from_millis(1);

/// Sends a request of fixed size and waits for the answer; a new connection each time.
fn ask(server: &str, request: [u64; 3]) -> io::Result<u64> {
    let call = || {
        let mut stream = TcpStream::connect((server, 80))?;
        stream.write_all(&request.map(u64::to_le_bytes).concat())?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        Ok(u64::from_le_bytes(answer))
    };
    with_timeout(Duration::from_secs(5), call).unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Answers requests, each on a fiber of its own.
fn serve(answer: impl Fn([u64; 3]) -> u64 + 'static) {
    let answer = Rc::new(answer);
    let listener = TcpListener::bind("0.0.0.0:80").unwrap();
    for stream in listener.incoming() {
        let answer = answer.clone();
        spawn(move || -> io::Result<()> {
            let mut stream = stream?;
            let mut request = [0; 24];
            stream.read_exact(&mut request)?;
            let mut words =
                request.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            let request = std::array::from_fn(|_| words.next().unwrap());
            stream.write_all(&answer(request).to_le_bytes())
        });
    }
}

/// A counter that clients add to with retries. A server that `forgets` counts a retried request twice.
fn count_exactly_once(world: &World, forgets: bool) {
    world.net().cuts(0.03);
    let counter = Rc::new(Cell::new(0));
    let count = counter.clone();
    let server = world.node("counter", move || {
        let done = RefCell::new(BTreeMap::new());
        serve(move |[client, number, amount]| {
            let mut done = done.borrow_mut();
            let known = done.get(&(client, number)).copied();
            if let Some(result) = known.filter(|_| !forgets) {
                return result;
            }
            count.set(count.get() + amount);
            done.insert((client, number), count.get());
            count.get()
        });
    });
    let clients: Vec<Node> = (0..3)
        .map(|client| {
            let world = world.clone();
            world.clone().node(&format!("client {client}"), move || {
                for number in 0..5 {
                    while ask("counter", [client, number, 1]).is_err() {
                        sleep(world.random().duration(MS..=100 * MS));
                    }
                }
            })
        })
        .collect();
    // Nobody reaches the server for a while.
    world.advance(Duration::from_millis(world.random().below(50)));
    world.net().isolate(&server);
    world.advance(Duration::from_millis(world.random().below(3000)));
    world.net().heal_all();
    clients.iter().for_each(Node::join);
    assert_eq!(counter.get(), 15, "each of 15 requests counts once");
}

#[test]
fn retries_count_exactly_once() {
    sim::check(0..300, |world| count_exactly_once(world, false));
}

#[test]
fn a_server_that_forgets_requests_is_found_out() {
    let found = (0..30).find(|&seed| {
        let run = || sim::run(seed, |world| count_exactly_once(world, true));
        catch_unwind(AssertUnwindSafe(run)).is_err()
    });
    assert!(found.is_some(), "a request that is counted twice is found");
}

/// As the counter above, on a disk: each request is a line of a file that is synced before the answer.
fn durable_counter(world: &World, careful: bool) {
    const PATH: &str = "/requests";
    world.net().cuts(0.01);
    let server = world.machine("counter");
    let main = move || {
        let file = File::options().append(true).create(true).open(PATH).unwrap();
        fs::sync_dir("/").unwrap();
        // What a crash has left of the last line is not counted, and no line begins in it.
        let text = fs::read(PATH).unwrap();
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).unwrap();
        let text = String::from_utf8_lossy(&text[..whole]).into_owned();
        let lines = Rc::new(Mutex::new(text.lines().map(str::to_owned).collect::<Vec<_>>()));
        serve(move |[client, number, _]| {
            let line = format!("{client} {number}");
            let mut lines = lines.lock();
            if let Some(known) = lines.iter().position(|known| *known == line) {
                return known as u64;
            }
            (&file).write_all(format!("{line}\n").as_bytes()).unwrap();
            if careful {
                file.sync_data().unwrap();
            }
            lines.push(line);
            lines.len() as u64 - 1
        });
    };
    server.start(main);
    let answers = Rc::new(RefCell::new(BTreeMap::new()));
    let clients: Vec<Node> = (0..3)
        .map(|client| {
            let (world, answers) = (world.clone(), answers.clone());
            world.clone().node(&format!("client {client}"), move || {
                for number in 0..10 {
                    let place = loop {
                        match ask("counter", [client, number, 0]) {
                            Ok(place) => break place,
                            Err(_) => sleep(world.random().duration(MS..=100 * MS)),
                        }
                    };
                    answers.borrow_mut().insert(format!("{client} {number}"), place);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        world.advance(world.random().duration(MS..=300 * MS));
        server.restart(main);
    }
    clients.iter().for_each(Node::join);
    // Power once more: what clients were told is what is on the disk.
    server.restart(|| ());
    server.join();
    let text = String::from_utf8(server.disk().read(PATH).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (line, place) in &*answers.borrow() {
        assert_eq!(lines.get(*place as usize), Some(&line.as_str()), "{lines:?}");
    }
    assert_eq!(lines.len(), 30);
}

#[test]
fn a_durable_counter_survives_crashes_and_cuts() {
    sim::check(0..100, |world| durable_counter(world, true));
}

#[test]
fn a_durable_counter_without_a_sync_is_found_out() {
    let found = (0..20).find(|&seed| {
        let run = || sim::run(seed, |world| durable_counter(world, false));
        catch_unwind(AssertUnwindSafe(run)).is_err()
    });
    assert!(found.is_some(), "an answer is lost");
}

const GET: u64 = 0;
const PUT: u64 = 1;
const REPLICAS: [&str; 3] = ["a", "b", "c"];

/// Asks all replicas, and gives the answers of the first two.
fn quorum(request: [u64; 3]) -> Option<Vec<u64>> {
    let answers = Rc::new(Queue::unbounded());
    let asking: Vec<JoinHandle<()>> = REPLICAS
        .iter()
        .map(|&replica| {
            let answers = answers.clone();
            spawn(move || {
                if let Ok(answer) = ask(replica, request) {
                    answers.put(answer).unwrap();
                }
            })
        })
        .collect();
    let two =
        with_timeout(Duration::from_secs(4), || (0..2).map(|_| answers.get().unwrap()).collect());
    asking.iter().for_each(JoinHandle::kill);
    two.ok()
}

/// A register on three replicas that keep the highest number they were given. One writer, one reader: once a write has
/// succeeded, no read gives less. Replicas lose their connections and are cut off, one at a time.
#[test]
fn a_replicated_register_does_not_go_back() {
    sim::check(0..100, |world| {
        world.net().cuts(0.01);
        let replicas: Vec<Node> = REPLICAS
            .iter()
            .map(|name| {
                world.node(name, || {
                    let highest = Cell::new(0);
                    serve(move |[what, value, _]| {
                        if what == PUT {
                            highest.set(highest.get().max(value));
                        }
                        highest.get()
                    });
                })
            })
            .collect();
        let written = Rc::new(Cell::new(0));
        let done = written.clone();
        let writer = world.node("writer", move || {
            for value in 1..=10 {
                while quorum([PUT, value, 0]).is_none() {
                    sleep(10 * MS);
                }
                done.set(value);
            }
        });
        let seen = written.clone();
        let reader = world.node("reader", move || {
            while seen.get() < 10 {
                let before = seen.get();
                if let Some(answers) = quorum([GET, 0, 0]) {
                    let read = answers.into_iter().max().unwrap_or(0);
                    assert!(before <= read, "{before} was written, {read} is read");
                }
                sleep(MS);
            }
        });
        let (net, random) = (world.net(), world.random());
        for _ in 0..5 {
            let replica = &replicas[random.index(3)];
            world.advance(random.duration(MS..=200 * MS));
            net.isolate(replica);
            world.advance(random.duration(MS..=2000 * MS));
            net.heal_all();
        }
        writer.join();
        reader.join();
    });
}

/// A server that runs out of descriptors for a while, and is stopped while it has clients: whom it has begun to answer
/// gets the whole answer.
#[test]
fn a_server_stops_gracefully() {
    let answered = Rc::new(Cell::new(0));
    let total = answered.clone();
    sim::check(0..100, move |world| {
        let server = world.machine("server");
        let own = world.clone();
        server.start(move || {
            let handler = |mut stream: TcpStream, _| {
                let mut answer = || -> io::Result<()> {
                    stream.read_exact(&mut [0])?;
                    stream.write_all(b"a")?;
                    sleep(50 * MS);
                    stream.write_all(b"b")
                };
                // The client may have given up.
                let _ = answer();
            };
            let server = StreamServer::bind("0.0.0.0:80", handler).unwrap();
            server.start();
            own.advance(own.random().duration(500 * MS..=2000 * MS));
            assert!(server.stop(Duration::from_secs(10)), "all handlers end by themselves");
        });
        let clients = (0..5).map(|_| {
            let (own, total, server) = (world.clone(), total.clone(), server.clone());
            spawn(move || {
                while server.is_running() {
                    own.advance(own.random().duration(MS..=100 * MS));
                    let Ok(mut stream) = TcpStream::connect("server:80") else { continue };
                    let mut byte = [0];
                    if stream.write_all(b"q").and_then(|()| stream.read_exact(&mut byte)).is_ok() {
                        stream.read_exact(&mut byte).expect("the rest of the answer");
                        assert_eq!(&byte, b"b");
                        total.set(total.get() + 1);
                    }
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        world.advance(world.random().duration(MS..=300 * MS));
        world.net().out_of_descriptors(&server, true);
        world.advance(world.random().duration(MS..=300 * MS));
        world.net().out_of_descriptors(&server, false);
        server.join();
        for client in join_all(clients) {
            client.unwrap();
        }
        let refused = TcpStream::connect("server:80").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
    assert!(answered.get() > 1000, "{} answers", answered.get());
}
