//! One server on each hub of a group, all on one address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::base::ServerStats;
use super::stream::StreamServer;
use crate::group::HubGroup;
use crate::inbox::HubHandle;
use crate::net::{TcpListener, TcpStream};
use crate::options::hub_local;

/// The servers that a hub has for groups, by the groups' numbers.
#[derive(Default)]
struct Servers(RefCell<HashMap<u64, StreamServer>>);

/// Servers on every hub of a [`HubGroup`], see [`StreamServer::on_every_hub`]. May be used from any thread.
pub struct ServerGroup {
    number: u64,
    address: SocketAddr,
    hubs: Vec<HubHandle>,
}

impl StreamServer {
    /// Starts a server on each hub of a group, all listening on `address`: the system spreads connections over them
    /// (`SO_REUSEPORT`), and each stays on the hub that accepted it. Every core serves, and nothing is shared:
    /// `make_handler` is called once on each hub.
    ///
    /// ```
    /// use std::io::{self, Read, Write};
    /// use std::time::Duration;
    /// use warren_hub::HubGroup;
    /// use warren_hub::net::TcpStream;
    /// use warren_hub::server::StreamServer;
    ///
    /// let group = HubGroup::start(2)?;
    /// let echo = || |stream: TcpStream, _| drop(io::copy(&mut &stream, &mut &stream));
    /// let servers = StreamServer::on_every_hub(&group, "127.0.0.1:0".parse().unwrap(), echo)?;
    /// let mut client = std::net::TcpStream::connect(servers.address())?;
    /// client.write_all(b"hello")?;
    /// client.read_exact(&mut [0; 5])?;
    /// drop(client);
    /// assert!(servers.stop(Duration::from_secs(5)));
    /// group.shutdown();
    /// # Ok::<(), io::Error>(())
    /// ```
    ///
    /// # Suspends
    /// On a fiber, until all listen. Elsewhere it blocks.
    ///
    /// # Errors
    /// What the system says, of the first hub that cannot listen. Then none does.
    pub fn on_every_hub<H: Fn(TcpStream, SocketAddr) + 'static>(
        group: &HubGroup,
        address: SocketAddr,
        make_handler: impl Fn() -> H + Clone + Send + 'static,
    ) -> io::Result<ServerGroup> {
        let make = move |listener| StreamServer::new(listener, make_handler());
        Self::on_every_hub_with(group, address, make)
    }

    /// As [`on_every_hub`](Self::on_every_hub), with servers that `make` makes as it likes: limited, encrypted.
    ///
    /// # Suspends
    /// On a fiber, until all listen. Elsewhere it blocks.
    ///
    /// # Errors
    /// As [`on_every_hub`](Self::on_every_hub).
    pub fn on_every_hub_with(
        group: &HubGroup,
        address: SocketAddr,
        make: impl Fn(TcpListener) -> StreamServer + Clone + Send + 'static,
    ) -> io::Result<ServerGroup> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let mut servers = ServerGroup { number, address, hubs: Vec::with_capacity(group.len()) };
        for index in 0..group.len() {
            let (make, wanted) = (make.clone(), servers.address);
            let started = on_hub(group.handle(index), move || {
                let listener = TcpListener::bind_shared(wanted)?;
                let address = listener.local_addr()?;
                let server = make(listener);
                server.start();
                hub_local(Servers::default).0.borrow_mut().insert(number, server);
                Ok(address)
            });
            match started {
                // The first finds out the port for all.
                Ok(address) => servers.address = address,
                Err(error) => {
                    servers.stop(Duration::ZERO);
                    return Err(error);
                }
            }
            servers.hubs.push(group.handle(index).clone());
        }
        Ok(servers)
    }
}

/// Runs `f` on another hub, and waits for what it says.
fn on_hub<T: Send + 'static>(
    hub: &HubHandle,
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let join = hub.spawn(f).map_err(io::Error::other)?;
    join.join().map_err(io::Error::other)?
}

impl ServerGroup {
    /// Where all of them listen, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops all at once, as [`stop`](super::BaseServer::stop) does. Whether all handlers ended by themselves.
    ///
    /// # Suspends
    /// On a fiber, until all have stopped. Elsewhere it blocks.
    pub fn stop(&self, timeout: Duration) -> bool {
        let number = self.number;
        let stopping: Vec<_> = self
            .hubs
            .iter()
            .filter_map(|hub| {
                let stop = move || {
                    let server = hub_local(Servers::default).0.borrow_mut().remove(&number);
                    server.is_none_or(|server| server.stop(timeout))
                };
                // A hub that has gone has no server.
                hub.spawn(stop).ok()
            })
            .collect();
        // All are waited for, whatever the first says.
        let ended: Vec<bool> =
            stopping.into_iter().map(|join| join.join().unwrap_or(false)).collect();
        ended.into_iter().all(|by_itself| by_itself)
    }

    /// What each has done so far, in the order of the hubs. One that has ended has done nothing.
    ///
    /// # Suspends
    /// On a fiber, until all have told. Elsewhere it blocks.
    pub fn stats(&self) -> Vec<ServerStats> {
        let number = self.number;
        let told = self.hubs.iter().map(|hub| {
            on_hub(hub, move || {
                let servers = hub_local(Servers::default);
                let stats = servers.0.borrow().get(&number).map(|server| server.stats());
                Ok(stats.unwrap_or_default())
            })
        });
        told.map(Result::unwrap_or_default).collect()
    }
}

impl fmt::Debug for ServerGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerGroup")
            .field("address", &self.address)
            .field("hubs", &self.hubs.len())
            .finish_non_exhaustive()
    }
}
