//! The resolver, with a small name server of this test's own on the loopback.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use warren_hub::net::dns::message::Message;
use warren_hub::net::dns::{self, Config, Hosts, Resolver};
use warren_hub::net::{TcpListener, TcpStream, ToAddrs, UdpSocket};
use warren_hub::server::DatagramServer;
use warren_hub::{JoinError, join_all, run, sim, sleep, spawn, yield_now};

const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// What the server says to one question.
#[derive(Clone, Default)]
struct Reply {
    code: u8,
    records: Vec<(String, u16, u32, Vec<u8>)>,
    /// How long it holds that there is nothing.
    minimum: Option<u32>,
    truncated: bool,
    silent: bool,
    delay: Duration,
    /// Wrong answers that come before.
    forged: bool,
}

impl Reply {
    fn a(mut self, name: &str, ttl: u32, ip: [u8; 4]) -> Self {
        self.records.push((name.into(), A, ttl, ip.to_vec()));
        self
    }

    fn aaaa(mut self, name: &str, ttl: u32, last: u8) -> Self {
        let mut ip = vec![0; 16];
        ip[15] = last;
        self.records.push((name.into(), AAAA, ttl, ip));
        self
    }

    fn name(mut self, name: &str, kind: u16, target: &str) -> Self {
        self.records.push((name.into(), kind, 60, wire_name(target)));
        self
    }

    fn none(code: u8, minimum: u32) -> Self {
        Self { code, minimum: Some(minimum), ..Self::default() }
    }
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn encode(query: &[u8], reply: &Reply) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
    let mut bytes = query[..end].to_vec();
    bytes[2] = 0x81 | u8::from(reply.truncated) << 1;
    bytes[3] = 0x80 | reply.code;
    bytes[6..8].copy_from_slice(&(reply.records.len() as u16).to_be_bytes());
    bytes[8..10].copy_from_slice(&u16::from(reply.minimum.is_some()).to_be_bytes());
    bytes[10..12].fill(0);
    let mut record = |name: &str, kind: u16, ttl: u32, data: &[u8]| {
        bytes.extend(wire_name(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    };
    for (name, kind, ttl, data) in &reply.records {
        record(name, *kind, *ttl, data);
    }
    if let Some(minimum) = reply.minimum {
        let mut data = vec![0, 0];
        data.extend([0; 16]);
        data.extend(minimum.to_be_bytes());
        record("example", 6, 3600, &data);
    }
    bytes
}

/// A name server, and what it was asked: name, kind, and whether by TCP.
#[derive(Clone)]
struct Server {
    addr: SocketAddr,
    zone: Rc<RefCell<HashMap<(String, u16), Reply>>>,
    log: Rc<RefCell<Vec<(String, u16, bool)>>>,
    /// What it says to everything else.
    default: Reply,
    /// Refuses questions with EDNS, as very old servers do.
    old: bool,
}

impl Server {
    fn start() -> Self {
        Self::start_with(Reply::none(3, 60), false)
    }

    fn start_with(default: Reply, old: bool) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let (zone, log) = (Rc::default(), Rc::default());
        let server = Self { addr, zone, log, default, old };
        spawn({
            let server = server.clone();
            let udp = Rc::new(udp);
            move || {
                let mut buffer = [0; 512];
                loop {
                    let (count, peer) = udp.recv_from(&mut buffer).unwrap();
                    let query = buffer[..count].to_vec();
                    let (server, udp) = (server.clone(), udp.clone());
                    spawn(move || server.by_udp(&udp, &query, peer));
                }
            }
        });
        spawn({
            let server = server.clone();
            move || {
                for stream in tcp.incoming() {
                    server.by_tcp(stream.unwrap());
                }
            }
        });
        server
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, kind) = Message::parse(query).unwrap().question.unwrap();
        self.log.borrow_mut().push((name.clone(), kind, tcp));
        if self.old && query[11] == 1 {
            return Some(encode(query, &Reply { code: 1, ..Reply::default() }));
        }
        let reply = self.zone.borrow().get(&(name, kind)).unwrap_or(&self.default).clone();
        sleep(reply.delay);
        let reply = Reply { truncated: reply.truncated && !tcp, ..reply };
        (!reply.silent).then(|| encode(query, &reply))
    }

    fn by_udp(&self, udp: &UdpSocket, query: &[u8], peer: SocketAddr) {
        let (name, kind) = Message::parse(query).unwrap().question.unwrap();
        if self.zone.borrow().get(&(name, kind)).is_some_and(|reply| reply.forged) {
            let lie = Reply::default().a("forged.example", 60, [6, 6, 6, 6]);
            let mut bytes = encode(query, &lie);
            bytes[0] ^= 1;
            udp.send_to(&bytes, peer).unwrap();
            udp.send_to(b"rubbish", peer).unwrap();
        }
        if let Some(bytes) = self.answer(query, false) {
            udp.send_to(&bytes, peer).unwrap();
        }
    }

    fn by_tcp(&self, mut stream: TcpStream) {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query).unwrap();
        let Some(bytes) = self.answer(&query, true) else { return };
        let framed = [&(bytes.len() as u16).to_be_bytes(), &bytes[..]].concat();
        // In two pieces.
        stream.write_all(&framed[..3]).unwrap();
        yield_now();
        stream.write_all(&framed[3..]).unwrap();
    }

    fn says(&self, name: &str, kind: u16, reply: Reply) {
        self.zone.borrow_mut().insert((name.into(), kind), reply);
    }

    fn asked(&self, name: &str, kind: u16) -> usize {
        self.log.borrow().iter().filter(|asked| (&*asked.0, asked.1) == (name, kind)).count()
    }
}

fn config(servers: &[&Server]) -> Config {
    let mut config = Config::default();
    config.servers = servers.iter().map(|server| server.addr).collect();
    config
}

fn addrs(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|addr| addr.parse().unwrap()).collect()
}

#[test]
fn both_families_are_asked_at_once_and_kept() {
    run(|| {
        let server = Server::start();
        server.says("host.example", A, Reply::default().a("host.example", 60, [192, 0, 2, 1]));
        server.says("host.example", AAAA, Reply::default().aaaa("host.example", 60, 1));
        let resolver = Resolver::new(config(&[&server]));
        let mut found = resolver.lookup("Host.Example").unwrap();
        found.sort();
        assert_eq!(found, addrs(&["192.0.2.1", "::1"]));
        assert_eq!(resolver.cached(), 2);
        for _ in 0..3 {
            assert_eq!(resolver.lookup("host.example.").unwrap().len(), 2);
        }
        assert_eq!((server.asked("host.example", A), server.asked("host.example", AAAA)), (1, 1));
        resolver.clear();
        resolver.lookup("host.example").unwrap();
        assert_eq!(server.asked("host.example", A), 2);
    });
}

#[test]
fn an_answer_is_kept_as_long_as_its_server_says() {
    run(|| {
        let server = Server::start();
        let reply = Reply::default().a("brief.example", 1, [192, 0, 2, 1]);
        server.says("brief.example", A, reply.a("brief.example", 100, [192, 0, 2, 2]));
        server.says("never.example", A, Reply::default().a("never.example", 0, [192, 0, 2, 3]));
        let resolver = Resolver::new(config(&[&server]));
        let begun = Instant::now();
        while server.asked("brief.example", A) < 2 {
            assert_eq!(resolver.lookup("brief.example").unwrap().len(), 2);
            sleep(Duration::from_millis(20));
        }
        assert!(begun.elapsed() >= Duration::from_secs(1));
        for _ in 0..2 {
            resolver.lookup("never.example").unwrap();
        }
        assert_eq!(server.asked("never.example", A), 2);
        // That there is nothing is kept, too.
        for _ in 0..2 {
            let error = resolver.lookup("none.example").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains("none.example"), "{error}");
        }
        assert_eq!(server.asked("none.example", A), 1);
    });
}

#[test]
fn the_cache_has_a_bound() {
    run(|| {
        let server = Server::start();
        let mut config = config(&[&server]);
        config.cache_entries_max = 10;
        let resolver = Resolver::new(config);
        for n in 0..20 {
            assert!(resolver.lookup(&format!("host{n}.example")).is_err());
        }
        assert_eq!(resolver.cached(), 10);
    });
}

#[test]
fn questions_under_way_are_shared_also_when_their_asker_is_killed() {
    run(|| {
        let server = Server::start();
        let reply = Reply { delay: Duration::from_millis(30), ..Reply::default() };
        server.says("slow.example", A, reply.a("slow.example", 60, [192, 0, 2, 1]));
        let resolver = Resolver::new(config(&[&server]));
        let ask = || {
            let resolver = resolver.clone();
            spawn(move || resolver.lookup("slow.example").unwrap())
        };
        let first = ask();
        let others: Vec<_> = (0..50).map(|_| ask()).collect();
        yield_now();
        first.kill();
        assert!(matches!(first.join(), Err(JoinError::Killed)));
        for found in join_all(others) {
            assert_eq!(found.unwrap(), addrs(&["192.0.2.1"]));
        }
        assert_eq!(server.asked("slow.example", A), 1);
    });
}

#[test]
fn aliases_are_followed_within_and_across_answers() {
    run(|| {
        let server = Server::start();
        let whole = Reply::default().name("www.example", CNAME, "real.example");
        server.says("www.example", A, whole.a("real.example", 60, [192, 0, 2, 1]));
        server.says("far.example", A, Reply::default().name("far.example", CNAME, "www.example"));
        for name in ["one.example", "two.example"] {
            let other = if name.starts_with("one") { "two.example" } else { "one.example" };
            server.says(name, A, Reply::default().name(name, CNAME, other));
        }
        dns::set_resolver(Resolver::new(config(&[&server])));
        let entry = dns::gethostbyname_ex("far.example").unwrap();
        assert_eq!(entry.name, "real.example");
        assert_eq!(entry.aliases, ["far.example", "www.example"]);
        assert_eq!(entry.addrs, addrs(&["192.0.2.1"]));
        assert_eq!(dns::gethostbyname("www.example").unwrap(), Ipv4Addr::new(192, 0, 2, 1));
        // A circle ends.
        assert!(dns::gethostbyname("one.example").is_err());
    });
}

#[test]
fn what_udp_cannot_carry_comes_by_tcp() {
    run(|| {
        let server = Server::start();
        let mut reply = Reply { truncated: true, ..Reply::default() };
        for n in 0..200 {
            reply = reply.a("many.example", 60, [192, 0, 2, n]);
        }
        server.says("many.example", A, reply);
        let resolver = Resolver::new(config(&[&server]));
        assert_eq!(resolver.lookup("many.example").unwrap().len(), 200);
        assert!(server.log.borrow().contains(&("many.example".into(), A, true)));
        let mut config = config(&[&server]);
        config.tcp_only = true;
        server.log.borrow_mut().clear();
        Resolver::new(config).lookup("many.example").unwrap();
        assert!(server.log.borrow().iter().all(|asked| asked.2));
    });
}

#[test]
fn short_names_are_searched() {
    run(|| {
        let server = Server::start();
        server.says("db.b.example", A, Reply::default().a("db.b.example", 60, [192, 0, 2, 1]));
        let mut config = config(&[&server]);
        config.search = vec!["a.example".into(), "b.example".into()];
        let resolver = Resolver::new(config);
        assert_eq!(resolver.lookup("db").unwrap(), addrs(&["192.0.2.1"]));
        let names: Vec<String> = server
            .log
            .borrow()
            .iter()
            .filter(|asked| asked.1 == A)
            .map(|asked| asked.0.clone())
            .collect();
        assert_eq!(names, ["db.a.example", "db.b.example"]);
        assert!(resolver.lookup("db.").is_err(), "a dot at the end ends the search");
    });
}

#[test]
fn servers_are_asked_one_after_the_other() {
    run(|| {
        let silent = Server::start_with(Reply { silent: true, ..Reply::default() }, false);
        let broken = Server::start_with(Reply { code: 2, ..Reply::default() }, false);
        let good = Server::start();
        good.says("host.example", A, Reply::default().a("host.example", 60, [192, 0, 2, 1]));
        let mut list = config(&[&silent, &broken, &good]);
        list.timeout = Duration::from_millis(250);
        // And one where nobody listens.
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        list.servers.insert(0, nobody);
        assert_eq!(Resolver::new(list).lookup("host.example").unwrap(), addrs(&["192.0.2.1"]));
        assert_eq!((silent.asked("host.example", A), broken.asked("host.example", A)), (1, 1));

        let mut list = config(&[&silent]);
        list.timeout = Duration::from_millis(10);
        list.attempts = 3;
        let error = Resolver::new(list).lookup("other.example").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(silent.asked("other.example", A), 3);
        let error = Resolver::new(config(&[&broken])).lookup("host.example").unwrap_err();
        assert!(error.to_string().contains("code 2"), "{error}");
    });
}

#[test]
fn servers_may_take_turns() {
    run(|| {
        let (one, other) = (Server::start(), Server::start());
        let mut config = config(&[&one, &other]);
        config.rotate = true;
        let resolver = Resolver::new(config);
        for n in 0..4 {
            assert!(resolver.lookup(&format!("host{n}.example")).is_err());
        }
        assert_eq!((one.log.borrow().len(), other.log.borrow().len()), (4, 4));
    });
}

#[test]
fn a_family_that_is_never_answered_does_not_hold_up_the_other() {
    run(|| {
        let server = Server::start();
        server.says("host.example", A, Reply::default().a("host.example", 60, [192, 0, 2, 1]));
        server.says("host.example", AAAA, Reply { silent: true, ..Reply::default() });
        let resolver = Resolver::new(config(&[&server]));
        let begun = Instant::now();
        assert_eq!(resolver.lookup("host.example").unwrap(), addrs(&["192.0.2.1"]));
        assert!(begun.elapsed() < Duration::from_secs(4));
    });
}

#[test]
fn forged_answers_and_rubbish_are_not_taken() {
    run(|| {
        let server = Server::start();
        let reply = Reply { forged: true, ..Reply::default() };
        server.says("host.example", A, reply.a("host.example", 60, [192, 0, 2, 1]));
        let resolver = Resolver::new(config(&[&server]));
        assert_eq!(resolver.lookup("host.example").unwrap(), addrs(&["192.0.2.1"]));
    });
}

#[test]
fn a_server_from_before_edns_is_asked_without() {
    run(|| {
        let server = Server::start_with(Reply::none(3, 60), true);
        server.says("host.example", A, Reply::default().a("host.example", 60, [192, 0, 2, 1]));
        let resolver = Resolver::new(config(&[&server]));
        assert_eq!(resolver.lookup("host.example").unwrap(), addrs(&["192.0.2.1"]));
        assert_eq!(server.asked("host.example", A), 2);
    });
}

#[test]
fn what_the_files_say_is_not_asked() {
    run(|| {
        let server = Server::start();
        let mut config = config(&[&server]);
        config.hosts = Hosts::parse("192.0.2.9 db.example db\n2001:db8::9 db.example\n");
        dns::set_resolver(Resolver::new(config));
        assert_eq!(
            dns::resolver().lookup("DB.example").unwrap(),
            addrs(&["192.0.2.9", "2001:db8::9"])
        );
        let entry = dns::gethostbyname_ex("db").unwrap();
        assert_eq!((&*entry.name, &entry.aliases[..]), ("db.example", &["db".to_owned()][..]));
        assert_eq!(dns::gethostbyaddr("192.0.2.9".parse().unwrap()).unwrap().name, "db.example");
        assert!(dns::gethostbyname("a.localhost").unwrap().is_loopback());
        assert_eq!(dns::getaddrinfo("::1", 5).unwrap(), ["[::1]:5".parse().unwrap()]);
        assert!(server.log.borrow().is_empty());
        server.says(
            "1.2.0.192.in-addr.arpa",
            PTR,
            Reply::default().name("1.2.0.192.in-addr.arpa", PTR, "one.example"),
        );
        assert_eq!(dns::gethostbyaddr("192.0.2.1".parse().unwrap()).unwrap().name, "one.example");
        let error = dns::gethostbyaddr("192.0.2.2".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn names_that_cannot_be_are_refused_unasked() {
    run(|| {
        let server = Server::start();
        dns::set_resolver(Resolver::new(config(&[&server])));
        for name in ["", "a..b", "bücher.example", &"a".repeat(70)] {
            let error = dns::gethostbyname(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(server.log.borrow().is_empty());
        assert_eq!("no port".to_addrs().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn connecting_by_name_uses_the_resolver_of_the_hub() {
    run(|| {
        let server = Server::start();
        // The first address refuses, the second answers.
        let reply = Reply::default().a("svc.example", 60, [127, 0, 0, 2]);
        server.says("svc.example", A, reply.a("svc.example", 60, [127, 0, 0, 1]));
        dns::set_resolver(Resolver::new(config(&[&server])));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("svc.example", port)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        let stream = TcpStream::connect(format!("svc.example:{port}")).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    });
}

#[test]
fn the_c_library_can_be_asked_instead() {
    run(|| {
        dns::set_resolver(Resolver::c_library());
        assert!(dns::resolver().lookup("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(dns::gethostbyaddr("127.0.0.1".parse().unwrap()).is_err());
    });
}

#[test]
fn in_a_lossy_world_an_answer_is_right_or_missing() {
    sim::check(0..20, |world| {
        world.net().loss(0.2).duplication(0.2);
        let names = world.node("names", || {
            let server = DatagramServer::bind("0.0.0.0:53", |datagram| {
                let (name, kind) = Message::parse(&datagram.data).unwrap().question.unwrap();
                let reply = match name.strip_suffix(".example").and_then(|n| n.parse().ok()) {
                    Some(n) if kind == A => Reply::default().a(&name, 5, [192, 0, 2, n]),
                    _ => Reply::none(3, 5),
                };
                datagram.reply(&encode(&datagram.data, &reply)).unwrap();
            });
            server.unwrap().serve_forever();
        });
        let mut config = Config::default();
        config.servers = vec![SocketAddr::new(names.ip(), 53)];
        config.timeout = Duration::from_millis(500);
        config.attempts = 3;
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (config, world) = (config.clone(), world.clone());
                world.clone().node(&format!("client {client}"), move || {
                    dns::set_resolver(Resolver::new(config));
                    for n in 0..5u8 {
                        match dns::resolver().lookup(&format!("{n}.example")) {
                            Ok(found) => assert_eq!(found, [IpAddr::from([192, 0, 2, n])]),
                            Err(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
                        }
                        sleep(world.random().duration(Duration::ZERO..=Duration::from_secs(4)));
                    }
                })
            })
            .collect();
        clients.iter().for_each(|client| client.join());
        // With nobody to ask, what is known still is, for as long as it may be.
        world.net().loss(0.0).duplication(0.0);
        dns::set_resolver(Resolver::new(config));
        dns::gethostbyname("7.example").unwrap();
        world.net().isolate(&names);
        dns::gethostbyname("7.example").unwrap();
        sleep(Duration::from_secs(5));
        let error = dns::gethostbyname("7.example").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        world.net().heal_all();
        sleep(Duration::from_secs(1));
        dns::gethostbyname("7.example").unwrap();
    });
}
