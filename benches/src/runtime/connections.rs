//! Connections that come and go.

use super::{Figure, Job, Kind, Peer, Scenario, Served, Size, Style};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "connect",
    title: "Connections that come and go",
    story: "The echo servers again. The client connects, sends 64 bytes, gets them back and resets the connection; so \
            many connections at the same time, each replaced by the next. Most of the time is the kernel's.",
    figures: &[
        Figure::less("server CPU us per connection", 1),
        Figure { more_is_better: true, ..Figure::less("connections per second", 0) },
    ],
    sizes: &[Size::new("1 at a time", 1, 1), Size::new("64 at a time", 64, 1)],
    peers: &[
        Peer::Warren,
        Peer::Protocol,
        Peer::Tokio,
        Peer::TokioMulti,
        Peer::May,
        Peer::Gevent,
        Peer::Go,
    ],
    kind: Kind::Server(Style::Connect(Job::Echo), &[Served::CpuMicros, Served::PerSecond]),
};
