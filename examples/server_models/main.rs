//! The same server in seven ways: who waits for a connection, and what it costs while it does.
//!
//! `cargo run --example server_models MODEL JOB [ADDRESS]`, such as `epoll http 127.0.0.1:8000`
//!
//! | model | what waits for a connection's next bytes |
//! |---|---|
//! | `process` | a process of its own, in a blocking read |
//! | `thread` | a thread of its own, in a blocking read |
//! | `select`, `poll`, `epoll` | one loop for all, which asks the system who is ready |
//! | `reactor` | the same loop, written once: a protocol is called with what has come |
//! | `fibers` | a fiber of its own, whose read looks as if it blocked |
//!
//! The job is `echo`, or `http`: a small request, a small answer. What is done with the bytes is the same for all
//! ([`job`]); a model only moves them. `cargo xtask bench models` measures how many requests and connections each of
//! them can stand.

mod by_hand;
mod fibers;
mod job;
mod process;
mod reactor;
mod thread;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};
use warren::hub::selectors::{Epoll, Poll, Select};

use job::Job;

const USAGE: &str =
    "usage: server_models process|thread|select|poll|epoll|reactor|fibers echo|http [ADDRESS]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ([model, job] | [model, job, _]) = words[..] else { return complain(USAGE) };
    let Some(job) = Job::named(job) else { return complain(USAGE) };
    let addr = words.get(2).unwrap_or(&"127.0.0.1:0");
    let Ok(addr) = addr.parse() else { return complain(&format!("{addr} is no address")) };
    let served = match model {
        "process" => listen(addr).and_then(|listener| process::serve(&listener, job)),
        process::ONE_CONNECTION => process::serve_one(job),
        "thread" => listen(addr).and_then(|listener| thread::serve(&listener, job)),
        "select" => listen(addr).and_then(|listener| by_hand::serve::<Select>(listener, job)),
        "poll" => listen(addr).and_then(|listener| by_hand::serve::<Poll>(listener, job)),
        "epoll" => listen(addr).and_then(|listener| by_hand::serve::<Epoll>(listener, job)),
        "reactor" => reactor::serve(addr, job),
        "fibers" => fibers::serve(addr, job),
        _ => return complain(USAGE),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    ready(listener.local_addr()?)?;
    Ok(listener)
}

/// Says where it listens, and makes room for as many connections as the system allows.
fn ready(addr: SocketAddr) -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    println!("listening on {addr}");
    Ok(())
}
