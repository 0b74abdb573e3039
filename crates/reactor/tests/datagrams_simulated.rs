//! Datagrams over a simulated network, which loses, doubles and reorders them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::dns::getaddrinfo;
use warren_hub::sync::Event;
use warren_hub::{sim, sleep};
use warren_reactor::{
    ConnectedDatagramProtocol, DatagramProtocol, DatagramTransport, Interface, MulticastOptions,
    call_later, connect_udp, listen_multicast, listen_udp,
};

/// Answers each question once it has come.
struct Double;

impl DatagramProtocol for Double {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], from: SocketAddr) {
        let n = u32::from_be_bytes(data.try_into().unwrap());
        transport.write(&[n.to_be_bytes(), (2 * n).to_be_bytes()].concat(), from).unwrap();
    }
}

/// Asks again and again what has not been answered.
struct Asker {
    open: Rc<RefCell<BTreeSet<u32>>>,
    done: Rc<Event>,
}

const PATIENCE: Duration = Duration::from_millis(50);

fn ask(transport: DatagramTransport, open: Rc<RefCell<BTreeSet<u32>>>) {
    for n in open.borrow().iter() {
        let _ = transport.write(&n.to_be_bytes(), None);
    }
    if !open.borrow().is_empty() {
        call_later(PATIENCE, move || ask(transport, open));
    }
}

impl ConnectedDatagramProtocol for Asker {
    fn start_protocol(&mut self, transport: &DatagramTransport) {
        ask(transport.clone(), self.open.clone());
    }

    fn datagram_received(&mut self, _transport: &DatagramTransport, data: &[u8]) {
        let (n, twice) = data.split_at(4);
        let (n, twice) =
            [n, twice].map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap())).into();
        assert_eq!(twice, 2 * n);
        self.open.borrow_mut().remove(&n);
        if self.open.borrow().is_empty() {
            self.done.set();
        }
    }
}

#[test]
fn questions_are_answered_over_a_bad_network() {
    sim::check(0..40, |world| {
        world.net().loss(0.3).duplication(0.2);
        world.net().latency(Duration::from_millis(1)..=Duration::from_millis(80));
        world.node("server", || {
            let _port = listen_udp("0.0.0.0:7".parse().unwrap(), Box::new(Double)).unwrap();
            Event::new().wait();
        });
        sleep(Duration::from_millis(1));
        let server = getaddrinfo("server", 7).unwrap()[0];
        let open = Rc::new(RefCell::new((0..50).collect()));
        let done = Rc::new(Event::new());
        let asker = Asker { open: open.clone(), done: done.clone() };
        let port = connect_udp(server, Box::new(asker)).unwrap();
        done.wait();
        // Options are taken, and change nothing.
        port.transport().set_broadcast_allowed(true).unwrap();
        assert!(port.transport().broadcast_allowed().is_err());
    });
}

#[test]
fn that_nobody_is_there_is_told() {
    struct Lonely(Rc<Event>);
    impl ConnectedDatagramProtocol for Lonely {
        fn start_protocol(&mut self, transport: &DatagramTransport) {
            transport.write(b"anybody?", None).unwrap();
        }
        fn datagram_received(&mut self, _transport: &DatagramTransport, _data: &[u8]) {
            panic!("there is nobody");
        }
        fn connection_refused(&mut self, _transport: &DatagramTransport) {
            self.0.set();
        }
    }
    sim::check(0..10, |world| {
        world.node("server", || Event::new().wait());
        sleep(Duration::from_millis(1));
        let server = getaddrinfo("server", 7).unwrap()[0];
        let refused = Rc::new(Event::new());
        let _port = connect_udp(server, Box::new(Lonely(refused.clone()))).unwrap();
        refused.wait();
    });
}

#[test]
fn members_of_a_group_hear_what_is_sent_to_it() {
    /// Counts what it hears, and leaves the group at `leave`.
    struct Member(Rc<Cell<u32>>, IpAddr);
    impl DatagramProtocol for Member {
        fn start_protocol(&mut self, transport: &DatagramTransport) {
            transport.join_group(self.1, &Interface::Any).unwrap();
            assert!(transport.join_group(self.1, &Interface::Any).is_err(), "joined already");
            assert!(transport.leave_group([239, 0, 0, 1].into(), &Interface::Any).is_err());
            assert!(transport.join_group([10, 0, 0, 1].into(), &Interface::Any).is_err());
        }
        fn datagram_received(&mut self, t: &DatagramTransport, data: &[u8], _from: SocketAddr) {
            self.0.set(self.0.get() + 1);
            if data == b"leave" {
                t.leave_group(self.1, &Interface::Any).unwrap();
            }
        }
    }
    let group = IpAddr::from([239, 7, 7, 7]);
    sim::check(0..20, move |world| {
        world.net().latency(Duration::from_millis(1)..=Duration::from_millis(1));
        let (heard, port) = (Rc::<Cell<u32>>::default(), SocketAddr::new(group, 9));
        let options = MulticastOptions { listen_multiple: true };
        let any = "0.0.0.0:9".parse().unwrap();
        for name in ["one", "two"] {
            let heard = heard.clone();
            world.node(name, move || {
                // Two on a node that share the port hear it both, and one that has not joined does not.
                let member = || Box::new(Member(heard.clone(), group));
                let _one = listen_multicast(any, options, member()).unwrap();
                let _other = listen_multicast(any, options, member()).unwrap();
                let deaf = Box::new(Double);
                let _deaf = listen_multicast(any, options, deaf).unwrap();
                Event::new().wait();
            });
        }
        sleep(Duration::from_millis(1));
        let sender = listen_udp("0.0.0.0:0".parse().unwrap(), Box::new(Double)).unwrap();
        sender.transport().write(b"stay", port).unwrap();
        sleep(Duration::from_millis(10));
        assert_eq!(heard.get(), 4);
        sender.transport().write(b"leave", port).unwrap();
        sleep(Duration::from_millis(10));
        sender.transport().write(b"nobody is left", port).unwrap();
        sleep(Duration::from_millis(10));
        assert_eq!(heard.get(), 8);
    });
}
