//! A task as a protocol: it is called when the answer has come, and remembers how far it was.

use std::net::SocketAddr;

use warren::reactor::{
    ClientFactory, Connector, Deferred, Factory, PeerAddr, Protocol, Reason, Resolver, Transport,
    connect_tcp,
};

use crate::journal::{Doing, Journal};
use crate::{Task, work};

/// Fires when the task is done.
pub(crate) fn start(task: Task, server: SocketAddr, journal: Journal) -> Deferred<()> {
    let (done, resolver) = Deferred::pending();
    connect_tcp(
        server,
        Box::new(Once(Some(Client { task, step: 0, journal, done: Some(resolver) }))),
    );
    done
}

/// Has a protocol for one connection. A resolver that is dropped fails its Deferred, so nobody waits for ever.
struct Once(Option<Client>);

impl Factory for Once {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        Some(Box::new(self.0.take()?))
    }
}

impl ClientFactory for Once {
    fn client_connection_failed(&mut self, _connector: &Connector, _reason: &Reason) {
        self.0 = None;
    }
}

struct Client {
    task: Task,
    /// How far it is.
    step: usize,
    journal: Journal,
    done: Option<Resolver<()>>,
}

impl Client {
    fn step(&mut self, transport: &Transport) {
        let (milliseconds, patience) = self.task.steps[self.step];
        self.step += 1;
        self.journal.note(self.task, Doing::Running);
        work(milliseconds);
        if patience > 0 {
            self.journal.note(self.task, Doing::Waiting);
            transport.write(format!("{patience}\n").as_bytes());
        } else {
            self.journal.note(self.task, Doing::Done);
            transport.lose_connection();
            if let Some(done) = self.done.take() {
                done.callback(());
            }
        }
    }
}

impl Protocol for Client {
    fn connection_made(&mut self, transport: &Transport) {
        self.step(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        // An answer is a line, which may come in pieces.
        if data.ends_with(b"\n") {
            self.step(transport);
        }
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}
