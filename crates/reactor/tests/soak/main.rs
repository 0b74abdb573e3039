//! Thousands of connections, cut at any point by whoever feels like it, on real sockets and in simulated networks. In the
//! end nothing is left of them: no descriptor, no watch, no fiber, no timer, no protocol, no transport, no memory.
//!
//! A failure on real sockets prints its seed; `WARREN_SOAK_SEED` makes the same choices again, as far as the system's
//! own timing lets it, and `WARREN_SOAK_CONNECTIONS` makes more of them. In simulations `WARREN_SIM_SEED` repeats a run exactly.

mod wild;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use warren_hub::net::{TcpStream, ToAddrs};
use warren_hub::sync::Queue;
use warren_hub::{RunInfo, fill_random, run, run_info, sim, sleep, spawn};
use warren_reactor::tls::{
    CertificateOptions, TlsClientOptions, TlsServerOptions, connect_ssl_with, listen_ssl,
    options_for_client_tls,
};
use warren_reactor::{
    ConnectOptions, ListeningPort, PeerAddr, call_later, connect_tcp_with, listen_tcp,
};
use wild::{Chance, Soak, Visitor};

/// Connections that are made at the same time.
const AT_ONCE: usize = 40;

/// Where to connect to.
struct Server {
    addr: SocketAddr,
    tls: Option<TlsServer>,
}

struct TlsServer {
    addr: SocketAddr,
    options: TlsClientOptions,
}

/// Makes `count` connections to `server`, some from protocols and some from fibers that know none, and waits until all of
/// them have ended. Calls `between` before each of them, and in the end.
fn visit(soak: &Soak, server: &Server, count: u64, mut between: impl FnMut(u64)) {
    let tokens = Rc::new(Queue::unbounded());
    for _ in 0..AT_ONCE {
        tokens.put(()).unwrap();
    }
    for number in 0..count {
        tokens.get().unwrap();
        between(number);
        let with_tls = server.tls.as_ref().filter(|_| soak.chance.one_in(2));
        let addr = with_tls.map_or(server.addr, |tls| tls.addr);
        if soak.chance.one_in(4) {
            let (soak, tokens) = (soak.clone(), tokens.clone());
            spawn(move || {
                let _ = stray(&soak.chance, addr);
                let _ = tokens.put(());
            });
            continue;
        }
        let again = soak.chance.one_in(10);
        let visitor = Visitor { soak: soak.clone(), tokens: tokens.clone(), again };
        let mut options = ConnectOptions::default();
        options.timeout = Duration::from_millis(1 + soak.chance.below(2000));
        let connector = match with_tls {
            // Now and then one who has not understood.
            Some(tls) if !soak.chance.one_in(20) => {
                connect_ssl_with(addr, Box::new(visitor), &tls.options, options)
            }
            _ => connect_tcp_with(addr, Box::new(visitor), options),
        };
        if soak.chance.one_in(8) {
            call_later(soak.chance.millis(10), move || connector.disconnect());
        }
    }
    between(count);
    for _ in 0..AT_ONCE {
        tokens.get().unwrap();
    }
}

/// A client that is rude.
fn stray(chance: &Chance, addr: impl ToAddrs) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(chance.millis(20) + Duration::from_millis(1)));
    stream.set_write_timeout(Some(chance.millis(20) + Duration::from_millis(1)));
    for _ in 0..chance.below(6) {
        match chance.below(6) {
            0 | 1 => stream.write_all(&chance.bytes(5000))?,
            2 => stream.write_all(&chance.bytes(100_000))?,
            3 => drop(stream.read(&mut [0; 5000])?),
            4 => stream.shutdown(Shutdown::Write)?,
            _ => sleep(chance.millis(5)),
        }
    }
    if chance.one_in(3) {
        // In a simulation there is nothing to set it on.
        let _ = stream.set_linger(Some(Duration::ZERO));
    }
    Ok(())
}

fn listen(soak: &Soak, addr: SocketAddr) -> ListeningPort {
    listen_tcp(addr, Box::new(soak.clone())).unwrap()
}

/// The options of a server, and of a client that trusts it.
fn tls_options() -> (TlsServerOptions, TlsClientOptions) {
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = made;
    let server = CertificateOptions::from_pem(&cert.pem(), &signing_key.serialize_pem());
    let client = options_for_client_tls("localhost").roots(&cert.pem());
    (server.build().unwrap(), client.build().unwrap())
}

fn addr_of(port: &ListeningPort) -> SocketAddr {
    let PeerAddr::Tcp(addr) = port.addr() else { unreachable!("a TCP port") };
    *addr
}

fn counts(info: &RunInfo) -> (usize, usize, usize) {
    (info.fibers.len(), info.timers, info.descriptors)
}

/// Waits until the hub has no more than it had.
fn expect_rest(before: &RunInfo, soak: &Soak) {
    let rested = (0..1500).any(|_| {
        let rested = counts(&run_info()) == counts(before) && soak.tally.is_over();
        if !rested {
            sleep(Duration::from_millis(10));
        }
        rested
    });
    let tally = &soak.tally;
    assert_eq!(tally.wrong.get(), None);
    assert!(
        rested,
        "something is left of {} connections, of which {} were lost, with {} of {} protocols \
         dropped, {} producers and {} transports:\n{}instead of\n{before}",
        tally.made.get(),
        tally.lost.get(),
        tally.dropped.get(),
        tally.built.get(),
        tally.producers.get(),
        tally.transports.borrow().len(),
        run_info(),
    );
}

/// The descriptors of this process, and what they are.
fn descriptors() -> BTreeMap<String, String> {
    let listed = std::fs::read_dir("/proc/self/fd").unwrap();
    let named = listed.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = std::fs::read_link(&path).ok()?;
        Some((path.display().to_string(), target.display().to_string()))
    });
    // The folder that is being read has one, too.
    named.filter(|(_, target)| !target.ends_with("/fd")).collect()
}

fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4
}

fn setting(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}

#[test]
fn nothing_is_left_of_connections_on_real_sockets() {
    let before = descriptors();
    let count = setting("WARREN_SOAK_CONNECTIONS").unwrap_or(5000);
    run(move || {
        let mut random = [0; 8];
        fill_random(&mut random);
        let seed = setting("WARREN_SOAK_SEED").unwrap_or(u64::from_ne_bytes(random));
        println!("WARREN_SOAK_SEED={seed}");
        let rest = run_info();
        let soak = Soak::new(seed);
        let port = listen(&soak, "127.0.0.1:0".parse().unwrap());
        let (tls, options) = tls_options();
        let secure =
            listen_ssl("127.0.0.1:0".parse().unwrap(), Box::new(soak.clone()), &tls).unwrap();
        let addr = addr_of(&port);
        let server = Server { addr, tls: Some(TlsServer { addr: addr_of(&secure), options }) };
        let mut port = Some(port);
        let mut resident = 0;
        visit(&soak, &server, count, |number| {
            // Now and then nobody listens for a moment, and who waits to be accepted is turned away.
            if number % 400 == 399 {
                port = None;
                port = Some(listen(&soak, addr));
            }
            if number == count / 2 {
                resident = resident_kib();
            }
        });
        drop((port, secure));
        expect_rest(&rest, &soak);
        println!("{} connections: {:?}", soak.tally.made.get(), soak.tally.reasons.borrow());
        let grown = resident_kib().saturating_sub(resident);
        assert!(grown < 20_000, "the second half has cost {grown} KiB");
    });
    assert_eq!(descriptors(), before);
}

#[test]
fn nothing_is_left_of_connections_in_a_network_that_fails() {
    sim::check(0..40, |world| {
        let soak = Soak::new(world.seed());
        world.net().window([500, 5000, 65_536][world.seed() as usize % 3]);
        let (up, stop) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (told, stopping, theirs) = (up.clone(), stop.clone(), Soak::new(!world.seed()));
        let server = world.node("server", move || {
            let rest = run_info();
            let port = listen(&theirs, "0.0.0.0:7".parse().unwrap());
            told.set(true);
            while !stopping.get() {
                sleep(Duration::from_millis(20));
            }
            drop(port);
            expect_rest(&rest, &theirs);
        });
        while !up.get() {
            sleep(Duration::from_millis(1));
        }
        let addr = SocketAddr::new(server.ip(), 7);
        let rest = run_info();
        let client = world.this_node();
        let net = world.net();
        let server_at = Server { addr, tls: None };
        visit(&soak, &server_at, 150, |number| {
            match soak.chance.below(60) {
                _ if number == 150 => net.heal_all().out_of_descriptors(&server, false).cuts(0.0),
                0 => net.cuts(0.01),
                1 => net.cuts(0.0),
                2 => net.out_of_descriptors(&server, soak.chance.one_in(2)),
                3 => net.partition(&client, &server),
                4..8 => net.heal_all(),
                _ => &net,
            };
        });
        expect_rest(&rest, &soak);
        stop.set(true);
        server.join();
    });
}
