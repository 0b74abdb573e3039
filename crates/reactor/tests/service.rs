//! Services: trees, names, ready-made ones, applications.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::run;
use warren_reactor::endpoints::{
    TcpClientEndpoint, TcpServerEndpoint, UnixClientEndpoint, UnixServerEndpoint,
};
use warren_reactor::service::{
    Application, ApplicationError, Backoff, ClientService, MultiService, Service, ServiceError,
    ServiceHandle, StreamServerEndpointService, TimerService,
};
use warren_reactor::testing::Clock;
use warren_reactor::{
    AnyError, Deferred, Factory, Failure, PeerAddr, Protocol, Reason, Resolver, Runner, StopCause,
    Transport, call_when_running, is_running, stop,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn say(&self, text: String) {
        self.0.borrow_mut().push(text);
    }

    fn take(&self) -> String {
        self.0.take().join(" ")
    }

    fn part(&self, name: &'static str) -> Part {
        Part { name, log: self.clone(), fails: "", held: Rc::default() }
    }
}

/// Says what is asked of it.
#[derive(Clone)]
struct Part {
    name: &'static str,
    log: Log,
    /// What it does not do.
    fails: &'static str,
    /// It stops when this is fired, if told to wait.
    held: Rc<RefCell<Option<Resolver<()>>>>,
}

impl Part {
    fn failing(mut self, fails: &'static str) -> Self {
        self.fails = fails;
        self
    }

    fn tell(&self, what: &'static str) -> Result<(), AnyError> {
        self.log.say(format!("{}:{what}", self.name));
        match self.fails {
            "panic" if what == "start" => panic!("expected by a test"),
            fails if fails == what => Err(AnyError::new(format!("no {what}"))),
            _ => Ok(()),
        }
    }
}

impl Service for Part {
    fn privileged_start_service(&self) -> Result<(), AnyError> {
        self.tell("bind")
    }

    fn start_service(&self) -> Result<(), AnyError> {
        self.tell("start")
    }

    fn stop_service(&self) -> Deferred<()> {
        let told = self.tell("stop");
        if self.fails == "wait" {
            let (deferred, resolver) = Deferred::pending();
            *self.held.borrow_mut() = Some(resolver);
            return deferred;
        }
        match told {
            Ok(()) => Deferred::succeed(()),
            Err(error) => Deferred::fail(error),
        }
    }
}

#[test]
fn a_tree_starts_in_order_and_stops_in_reverse() {
    let log = Log::default();
    let (root, inner) = (MultiService::new(), MultiService::new());
    root.add_service(log.part("a")).unwrap();
    root.add_named("inner", inner.clone()).unwrap();
    inner.add_service(log.part("b")).unwrap();
    inner.add_service(log.part("c")).unwrap();
    let last = root.add_service(log.part("d")).unwrap();
    root.privileged_start_service().unwrap();
    assert_eq!(log.take(), "a:bind b:bind c:bind d:bind");
    assert!(!last.is_running());
    root.start_service().unwrap();
    assert_eq!(log.take(), "a:start b:start c:start d:start");
    assert!(last.is_running() && inner.is_running() && root.is_running());
    root.start_service().unwrap();
    assert_eq!(log.take(), "", "it runs");
    root.stop_service().wait().unwrap();
    assert_eq!(log.take(), "d:stop c:stop b:stop a:stop");
    assert!(!last.is_running() && !root.is_running());
    root.stop_service().wait().unwrap();
    assert_eq!(log.take(), "");
    // And again, this time in one go.
    root.start_service().unwrap();
    assert_eq!(log.take(), "a:bind a:start b:bind c:bind b:start c:start d:bind d:start");
}

#[test]
fn all_stops_are_waited_for_and_none_for_another() {
    let log = Log::default();
    let root = MultiService::new();
    let (one, two) = (log.part("one").failing("wait"), log.part("two").failing("wait"));
    root.add_service(one.clone()).unwrap();
    root.add_service(log.part("bad").failing("stop")).unwrap();
    root.add_named("worse", log.part("worse").failing("stop")).unwrap();
    root.add_service(two.clone()).unwrap();
    root.start_service().unwrap();
    log.take();
    let stopped = root.stop_service();
    assert_eq!(log.take(), "two:stop worse:stop bad:stop one:stop");
    assert!(!stopped.has_fired());
    two.held.take().unwrap().callback(());
    assert!(!stopped.has_fired());
    one.held.take().unwrap().callback(());
    let text = stopped.wait().unwrap_err().to_string();
    assert_eq!(text, "the service worse did not stop as it should: no stop");
}

#[test]
fn children_come_and_go_while_the_tree_runs() {
    let log = Log::default();
    let root = MultiService::new();
    root.privileged_start_service().unwrap();
    let early = root.add_named("early", log.part("early")).unwrap();
    assert_eq!(log.take(), "early:bind");
    root.start_service().unwrap();
    let late = root.add_named("late", log.part("late")).unwrap();
    assert_eq!(log.take(), "early:start late:bind late:start");
    assert_eq!(late.parent().unwrap().services().len(), 2);
    root.remove_service(&early).wait().unwrap();
    assert_eq!(log.take(), "early:stop");
    assert!(early.parent().is_none() && !early.is_running());
    late.disown_service_parent().wait().unwrap();
    late.disown_service_parent().wait().unwrap();
    assert_eq!(log.take(), "late:stop");
    let gone = root.remove_service(&late).wait();
    assert_eq!(gone.unwrap_err().to_string(), "the service late is no child of this service");
    // Moved to a tree that does not run.
    let other = MultiService::new();
    early.set_service_parent(&other).unwrap();
    assert_eq!((log.take(), other.services().len()), (String::new(), 1));
    let refused = root.add(&early).unwrap_err();
    assert!(matches!(refused, ServiceError::HasParent { .. }), "{refused}");
}

#[test]
fn names_are_unique_below_one_parent() {
    let log = Log::default();
    let root = MultiService::new();
    let web = root.add_named("web", log.part("web")).unwrap();
    assert_eq!(root.get_service_named("web").unwrap().name().as_deref(), Some("web"));
    assert!(root.get_service_named("mail").is_none());
    let taken = root.add_named("web", log.part("other")).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "there is a service named web already: give the other one another name"
    );
    assert!(matches!(web.set_name("mail"), Err(ServiceError::HasParent { .. })));
    root.remove_service(&web).wait().unwrap();
    web.set_name("mail").unwrap();
    root.add(&web).unwrap();
    assert!(root.get_service_named("mail").is_some());
    let nameless = ServiceHandle::new(log.part("x"));
    assert_eq!((nameless.name(), nameless.to_string()), (None, "a service without a name".into()));
}

#[test]
fn a_service_that_does_not_start_says_why() {
    #[track_caller]
    fn check(fails: &'static str, text: &str, said: &str) {
        let log = Log::default();
        let root = MultiService::new();
        root.add_service(log.part("a")).unwrap();
        let bad = root.add_named("bad", log.part("bad").failing(fails)).unwrap();
        root.add_service(log.part("c")).unwrap();
        assert_eq!(root.start_service().unwrap_err().to_string(), text);
        assert!(!bad.is_running());
        log.take();
        root.stop_service().wait().unwrap();
        assert_eq!(log.take(), said);
    }
    check("start", "the service bad does not start: no start", "bad:stop a:stop");
    check("bind", "the service bad does not start: no bind", "a:stop");
    let panicked = "the service bad does not start: it panicked: expected by a test";
    check("panic", panicked, "bad:stop a:stop");
    // One that is added to a tree that runs is not kept.
    let (log, root) = (Log::default(), MultiService::new());
    root.start_service().unwrap();
    assert!(root.add_service(log.part("bad").failing("start")).is_err());
    assert!(root.services().is_empty());
}

#[test]
fn an_inner_service_that_fails_stops_its_own() {
    let log = Log::default();
    let (root, inner) = (MultiService::new(), MultiService::new());
    inner.add_service(log.part("a")).unwrap();
    inner.add_named("bad", log.part("bad").failing("start")).unwrap();
    root.add_named("inner", inner).unwrap();
    let text = root.start_service().unwrap_err().to_string();
    assert_eq!(text, "the service inner does not start: the service bad does not start: no start");
    assert!(log.take().ends_with("bad:stop a:stop"));
}

#[test]
fn a_timer_ticks_while_it_runs() {
    let clock = Clock::install();
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    let timer = Rc::new(TimerService::new(SECOND, move || {
        counter.set(counter.get() + 1);
        if counter.get() == 5 { Err(AnyError::new("expected by a test")) } else { Ok(()) }
    }));
    let root = MultiService::new();
    root.add_service(timer.clone()).unwrap();
    root.start_service().unwrap();
    clock.pump([SECOND; 2]);
    assert_eq!(count.get(), 3);
    root.stop_service().wait().unwrap();
    clock.pump([SECOND; 2]);
    assert_eq!((count.get(), clock.delayed_calls()), (3, 0));
    root.start_service().unwrap();
    clock.pump([SECOND; 9]);
    assert_eq!((count.get(), timer.call().is_running()), (5, false), "it has failed");
    root.stop_service().wait().unwrap();
    root.start_service().unwrap();
    assert_eq!(count.get(), 6);
}

/// Notes that it was connected and lost; closes at once if told to.
struct Peer {
    closes: bool,
    lost: Rc<Cell<usize>>,
}

impl Protocol for Peer {
    fn connection_made(&mut self, transport: &Transport) {
        if self.closes {
            transport.lose_connection();
        }
    }
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {
        self.lost.set(self.lost.get() + 1);
    }
}

/// Builds peers, of which the first `closes` close at once.
struct Peers {
    closes: usize,
    lost: Rc<Cell<usize>>,
}

impl Factory for Peers {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let closes = self.closes > 0;
        self.closes = self.closes.saturating_sub(1);
        Some(Box::new(Peer { closes, lost: self.lost.clone() }))
    }
}

fn peers(closes: usize) -> (Peers, Rc<Cell<usize>>) {
    let lost = Rc::new(Cell::new(0));
    (Peers { closes, lost: lost.clone() }, lost)
}

fn localhost() -> TcpServerEndpoint {
    TcpServerEndpoint::at(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn quick() -> Backoff {
    let mut backoff = Backoff::default();
    (backoff.initial_delay, backoff.jitter) = (MS, Duration::ZERO);
    backoff
}

fn addr_of(server: &StreamServerEndpointService) -> SocketAddr {
    match server.addr() {
        Some(PeerAddr::Tcp(addr)) => addr,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_listens_while_it_runs_and_a_client_keeps_a_connection() {
    run(|| {
        let (accepting, _) = peers(2);
        let server = Rc::new(StreamServerEndpointService::new(localhost(), accepting));
        let servers = MultiService::new();
        servers.add_service(server.clone()).unwrap();
        assert!(server.addr().is_none());
        servers.privileged_start_service().unwrap();
        let addr = addr_of(&server);
        servers.start_service().unwrap();
        assert_eq!(addr_of(&server), addr);

        let (connecting, lost) = peers(0);
        let endpoint = TcpClientEndpoint::new(addr);
        let client = ClientService::with_backoff(endpoint, connecting, quick());
        let clients = MultiService::new();
        clients.add_service(client.clone()).unwrap();
        let connected = client.when_connected();
        clients.start_service().unwrap();
        connected.wait().unwrap();
        // The server closes two of its connections.
        while lost.get() < 2 || client.transport().is_none() {
            warren_hub::sleep(MS);
        }
        assert_eq!(client.when_connected().wait().unwrap().peer(), &PeerAddr::Tcp(addr));
        clients.stop_service().wait().unwrap();
        assert_eq!((lost.get(), client.transport().is_none()), (3, true), "it is gone by then");
        servers.stop_service().wait().unwrap();
        assert!(server.addr().is_none());
    });
}

#[test]
fn who_waits_for_a_connection_is_told_when_there_is_none() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = UnixClientEndpoint::new(folder.path().join("nobody"));
        let client = ClientService::with_backoff(endpoint, peers(0).0, quick());
        let (twice, never) = (client.when_connected_within(2), client.when_connected());
        client.start_service().unwrap();
        let refused = twice.wait().unwrap_err();
        assert!(refused.to_string().starts_with("cannot connect: "), "{refused}");
        client.stop_service().wait().unwrap();
        assert!(matches!(never.wait(), Err(Failure::Cancelled)));
    });
}

#[test]
fn a_client_that_is_started_while_it_stops_connects_anew() {
    run(|| {
        let server = StreamServerEndpointService::new(localhost(), peers(0).0);
        server.start_service().unwrap();
        let (connecting, lost) = peers(0);
        let client = ClientService::new(TcpClientEndpoint::new(addr_of(&server)), connecting);
        // Stopped before it is connected.
        client.start_service().unwrap();
        client.stop_service().wait().unwrap();
        assert!(client.stop_service().has_fired());
        client.start_service().unwrap();
        client.when_connected().wait().unwrap();
        let (stopped, too) = (client.stop_service(), client.stop_service());
        client.start_service().unwrap();
        stopped.wait().unwrap();
        too.wait().unwrap();
        assert_eq!(lost.get(), 1);
        // Its first delay would be 1.5 s and more.
        let again = client.when_connected();
        client.stop_service().wait().unwrap();
        assert!(again.wait().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_server_on_a_socket_of_unix_removes_it() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let server = StreamServerEndpointService::new(UnixServerEndpoint::new(&path), peers(0).0);
        server.start_service().unwrap();
        let client = ClientService::new(UnixClientEndpoint::new(&path), peers(0).0);
        client.start_service().unwrap();
        client.when_connected().wait().unwrap();
        client.stop_service().wait().unwrap();
        server.stop_service().wait().unwrap();
        assert!(!path.exists());
    });
}

fn application() -> Application {
    Application::new("test").runner(Runner::new().without_signals())
}

#[test]
fn an_application_runs_its_services() {
    let text = run(|| {
        let (log, application) = (Log::default(), application());
        let waits = log.part("waits").failing("wait");
        application.services().add_service(log.part("a")).unwrap();
        application.services().add_service(waits.clone()).unwrap();
        let (shed, ticking) = (log.clone(), log.clone());
        let timer = TimerService::new(MS, move || {
            if stop().is_ok() {
                ticking.say("tick".into());
            }
        });
        application.services().add_service(timer).unwrap();
        let application = application.shed_privileges(move || {
            shed.say("shed".into());
            Ok(())
        });
        let other = log.clone();
        warren_hub::spawn(move || {
            while waits.held.borrow().is_none() {
                warren_hub::sleep(MS);
            }
            assert!(is_running(), "the shutdown waits for it");
            other.say("released".into());
            waits.held.take().unwrap().callback(());
        });
        let stopped = application.run().unwrap();
        assert_eq!((stopped.cause, stopped.failed), (StopCause::Call, 0));
        log.take()
    });
    assert_eq!(text, "a:bind waits:bind shed a:start waits:start tick waits:stop a:stop released");
}

#[test]
fn an_application_that_does_not_start_undoes_what_it_did() {
    let (error, text) = run(|| {
        let log = Log::default();
        let application = application();
        application.services().add_service(log.part("a")).unwrap();
        application.services().add_named("bad", log.part("bad").failing("start")).unwrap();
        call_when_running(|| panic!("it does not run"));
        (application.run().unwrap_err().to_string(), log.take())
    });
    assert_eq!(error, "the service bad does not start: no start");
    assert_eq!(text, "a:bind bad:bind a:start bad:start bad:stop a:stop");
    let refused =
        application().shed_privileges(|| Err(io::Error::other("not root"))).run().unwrap_err();
    assert!(matches!(refused, ApplicationError::Privileges(_)));
    assert_eq!(refused.to_string(), "the privileges cannot be given up: not root");
}

#[test]
fn what_fails_at_the_end_is_counted() {
    let stopped = {
        let application = application();
        let log = Log::default();
        application.services().add_service(log.part("a").failing("stop")).unwrap();
        let timer = TimerService::new(MS, || {
            let _ = stop();
        });
        application.services().add_service(timer).unwrap();
        application.run().unwrap()
    };
    assert_eq!((stopped.failed, stopped.late), (1, 0));
}
