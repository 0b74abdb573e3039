//! Event-driven protocols and transports, with Twisted's vocabulary, hosted by the hub.
//!
//! A [`Protocol`] is a state machine: bytes come in through [`data_received`](Protocol::data_received), bytes
//! go out through its [`Transport`]. It owns no socket and no stack, so an idle connection costs some hundred
//! bytes, and a test drives it with bytes alone ([`testing`]). A [`Factory`] makes one for each connection that
//! a [`ListeningPort`] accepts.
//!
//! ```text
//!            hub: readiness                           hub: end of the turn
//!                 |                                          |
//!   socket --> one read buffer per thread --> Protocol --> Output of each transport --> writev --> socket
//!                                              data_received     write, write_with
//! ```
//!
//! Rules that make protocols simple to write:
//!
//! - Callbacks of one protocol never nest. Writing, closing, pausing only notes what is wanted; the transport
//!   acts at the end of the loop's turn. So a protocol may write to any transport from anywhere.
//! - All that is written during a turn leaves in as few system calls as possible.
//! - A callback that panics ends its own connection, with [`Reason::Panicked`], and no other.
//! - After [`connection_lost`](Protocol::connection_lost) nothing more is called.
//!
//! Callbacks must not wait. Logic that does is easier on a fiber, which [waits](Deferred::wait) for a [`Deferred`] as
//! for anything else; the two mix freely on one hub.
//!
//! # For those who know Twisted
//!
//! | Twisted | here |
//! |---|---|
//! | `reactor.run`, `stop`, `callWhenRunning`, `addSystemEventTrigger` | [`run`], [`stop`], [`call_when_running`], [`add_system_event_trigger`]; on a hub that runs anyway: [`Runner`] |
//! | `Protocol`, `IHalfCloseableProtocol`, `IHandshakeListener` | [`Protocol`]: all three |
//! | `Factory`, `ClientFactory`, `ReconnectingClientFactory` | [`Factory`], [`ClientFactory`], [`ReconnectingClientFactory`] |
//! | `listenTCP`, `connectTCP`, `listenUNIX`, `connectUNIX` | [`listen_tcp`], [`connect_tcp`], [`listen_unix`], [`connect_unix`] |
//! | `listenSSL`, `connectSSL`, `startTLS`, `CertificateOptions` | `tls` (feature `tls`) |
//! | `transport.write`, `loseConnection`, ... | [`Transport`] |
//! | `IProducer`, `IConsumer` | [`Producer`], [`Consumer`] |
//! | `LineReceiver`, `NetstringReceiver`, `Int32StringReceiver`, `StatefulProtocol`, `FileSender` | [`protocols`] |
//! | `TimeoutMixin`, `ThrottlingFactory`, `LimitTotalConnectionsFactory`, `WrappingFactory` | [`policies`] |
//! | `Deferred`, `DeferredList`, `DeferredLock`, `maybeDeferred`, ... | [`deferred`] |
//! | `inlineCallbacks` | a fiber |
//! | `callLater`, `LoopingCall`, `Cooperator` | [`call_later`], [`LoopingCall`], [`Cooperator`] |
//! | `callFromThread`, `deferToThread`, `blockingCallFromThread` | [`call_from_thread`], [`defer_to_thread`], [`ReactorHandle::blocking_call_from_thread`] |
//! | `HAProxyWrappingFactory` | [`proxy_protocol`] |
//! | `serverFromString`, `clientFromString`, `HostnameEndpoint` | [`endpoints`] |
//! | `DatagramProtocol`, `listenUDP`, `listenMulticast` | [`DatagramProtocol`], [`listen_udp`], [`listen_multicast`] |
//! | `ProcessProtocol`, `spawnProcess`, `getProcessOutput` | [`ProcessProtocol`], [`spawn_process`], [`get_process_output`] |
//! | `StandardIO` | [`stdio::StandardIo`] |
//! | `task.react`, `SIGINT` and `SIGTERM` | [`react`], [`Runner::signals`] |
//! | `Service`, `MultiService`, `TimerService`, `ClientService`, `Application` | [`service`] |
//! | `StringTransport`, `Clock`, `iosim` | [`testing`] |
//!
//! The order of callbacks is Twisted's, which the tests compare with. On purpose different: nothing is received after
//! [`lose_connection`](Transport::lose_connection); at the end of the input, what has been written still leaves; a
//! connection of which both halves have ended is lost.

mod chance;
mod completion;
mod connect;
mod cooperator;
mod datagram;
pub mod deferred;
mod delegate;
pub mod endpoints;
pub mod events;
mod home;
mod layer;
mod listen;
mod looping;
mod output;
mod pipe;
pub mod policies;
mod process;
mod producer;
mod protocol;
pub mod protocols;
pub mod proxy_protocol;
mod reconnecting;
mod remote;
pub mod service;
mod socket;
pub mod stdio;
mod system;
pub mod testing;
mod threads;
mod time;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;
mod udp;
mod unix_datagram;

pub use completion::Completion;
pub use connect::{
    ConnectOptions, Connector, ConnectorState, connect_tcp, connect_tcp_with, connect_unix,
};
pub use cooperator::{CooperativeTask, Cooperator, TaskError, coiterate, cooperate};
pub use datagram::{
    ConnectedDatagramProtocol, DatagramAddr, DatagramError, DatagramPort, DatagramProtocol,
    DatagramTransport, UnixAddr,
};
pub use deferred::{
    AnyError, Canceller, Deferred, DeferredList, DeferredLock, DeferredPermit, DeferredQueue,
    DeferredSemaphore, Failure, FailureGroup, FirstError, Outcome, Pause, QueueOverflow,
    QueueUnderflow, Resolver, Unhandled, UnhandledFailures, defer_later, ensure_deferred, execute,
    gather_results, maybe_deferred, race, spawn_deferred,
};
pub use listen::{BoundPort, ListeningPort, bind_tcp, bind_unix, listen_tcp, listen_unix};
pub use looping::{AlreadyLooping, LoopingCall};
pub use output::drop_pooled_buffers;
pub use process::{
    ChildFd, ErrorOutput, ProcessCommand, ProcessDone, ProcessError, ProcessOutput,
    ProcessProtocol, ProcessReason, ProcessTerminated, ProcessTransport, ToSignal,
    get_process_output, get_process_output_and_value, get_process_value, spawn_process,
};
pub use producer::{Consumer, Producer};
pub use protocol::{ClientFactory, Factory, PeerAddr, Protocol, Reason};
pub use reconnecting::{NothingToRetry, ReconnectPolicy, Reconnecting, ReconnectingClientFactory};
pub use remote::{Preparer, RemoteFactory, relayed};
pub use system::{
    ReactorNotRunning, RunError, Runner, StopCause, Stopped, SystemEvent, TriggerId, TriggerPhase,
    add_system_event_trigger, call_when_running, fire_system_event, is_running, react,
    remove_system_event_trigger, run, stop,
};
pub use threads::{
    ReactorHandle, call_from_thread, call_in_thread, call_multiple_in_thread, defer_to_thread,
    defer_to_thread_pool, reactor_handle, suggest_thread_pool_size, thread_pool,
};
pub use time::{DelayedCall, call_later, now};
pub use transport::{Transport, WeakTransport, WriteLimits};
pub use udp::multicast::{Interface, MulticastOptions, listen_multicast};
pub use udp::{UdpPort, connect_udp, listen_udp};
pub use unix_datagram::{UnixDatagramPort, connect_unix_datagram, listen_unix_datagram};
