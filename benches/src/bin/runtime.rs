//! Our hub beside tokio on one thread: switching, spawning, sleeping, echoing.
//!
//! `cargo xtask bench runtime`. Each measurement runs in a process of its own, which this program starts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use warren_benches::group_resident_kib;
use warren_benches::table::{median, row, thousands};

/// Compares two runtimes.
#[derive(Parser)]
struct Arguments {
    /// Of how many measurements the median is taken.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure this one, here, and print the figures.
    #[arg(long)]
    case: Option<String>,
}

const SWITCHES: u32 = 2_000_000;
const SPAWNS: u32 = 200_000;
const SLEEPERS: u32 = 10_000;
const ECHO_BYTES: usize = 64;
const ECHO_TIME: Duration = Duration::from_secs(2);

fn main() {
    let arguments = Arguments::parse();
    if let Some(case) = &arguments.case {
        return measure(case);
    }
    let run = |case: &str, column: usize| {
        let values = (0..arguments.rounds).map(|_| child(case)[column]).collect();
        median(values)
    };
    println!("| | Warren's hub | tokio, one thread | ratio |");
    println!("|---|---:|---:|---:|");
    let nanoseconds = |value: f64| format!("{value:.0} ns");
    for (what, case) in [("switch between two tasks", "switch"), ("spawn and join a task", "spawn")]
    {
        let (ours, theirs) = (run(&format!("{case}-warren"), 0), run(&format!("{case}-tokio"), 0));
        println!("{}", row(what, ours, theirs, false, nanoseconds));
    }
    let milliseconds = |value: f64| format!("{value:.0} ms");
    let (ours, theirs) = (child("sleep-warren"), child("sleep-tokio"));
    println!("{}", row("10,000 tasks sleep 1 s", ours[0], theirs[0], false, milliseconds));
    println!(
        "{}",
        row("their resident memory", ours[1], theirs[1], false, |kib| format!("{kib:.0} KiB"))
    );
    for connections in [1, 50, 500] {
        let echo = |server: &str| {
            let values =
                (0..arguments.rounds).map(|_| echo_requests(server, connections)).collect();
            median(values)
        };
        let what = format!(
            "echo requests/s, {connections} connection{}",
            if connections > 1 { "s" } else { "" }
        );
        println!("{}", row(&what, echo("echo-warren"), echo("echo-tokio"), true, thousands));
    }
}

/// The figures that a process of its own prints.
fn child(case: &str) -> Vec<f64> {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).args(["--case", case]).output().expect("this program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect()
}

fn measure(case: &str) {
    let start = Instant::now();
    let per = |count: u32| start.elapsed().as_nanos() as f64 / f64::from(count);
    let tokio = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("tokio starts")
    };
    match case {
        "switch-warren" => {
            warren_hub::run(|| {
                let tasks = (0..2).map(|_| {
                    warren_hub::spawn(|| (0..SWITCHES / 2).for_each(|_| warren_hub::yield_now()))
                });
                drop(warren_hub::join_all(tasks));
            });
            println!("{}", per(SWITCHES));
        }
        "switch-tokio" => {
            let local = tokio::task::LocalSet::new();
            tokio().block_on(local.run_until(async {
                let tasks: Vec<_> = (0..2)
                    .map(|_| {
                        tokio::task::spawn_local(async {
                            for _ in 0..SWITCHES / 2 {
                                tokio::task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            }));
            println!("{}", per(SWITCHES));
        }
        "spawn-warren" => {
            warren_hub::run(|| {
                for number in 0..SPAWNS {
                    let task = warren_hub::spawn(move || number);
                    std::hint::black_box(task.join().expect("no panic"));
                }
            });
            println!("{}", per(SPAWNS));
        }
        "spawn-tokio" => {
            let local = tokio::task::LocalSet::new();
            tokio().block_on(local.run_until(async {
                for number in 0..SPAWNS {
                    let task = tokio::task::spawn_local(async move { number });
                    std::hint::black_box(task.await.expect("no panic"));
                }
            }));
            println!("{}", per(SPAWNS));
        }
        "sleep-warren" => {
            let kib = warren_hub::run(|| {
                let tasks: Vec<_> = (0..SLEEPERS)
                    .map(|_| warren_hub::spawn(|| warren_hub::sleep(Duration::from_secs(1))))
                    .collect();
                warren_hub::sleep(Duration::from_millis(500));
                let kib = own_resident_kib();
                drop(warren_hub::join_all(tasks));
                kib
            });
            println!("{} {kib}", start.elapsed().as_millis());
        }
        "sleep-tokio" => {
            let kib = tokio().block_on(tokio::task::LocalSet::new().run_until(async {
                let tasks: Vec<_> = (0..SLEEPERS)
                    .map(|_| tokio::task::spawn_local(tokio::time::sleep(Duration::from_secs(1))))
                    .collect();
                tokio::time::sleep(Duration::from_millis(500)).await;
                let kib = own_resident_kib();
                for task in tasks {
                    task.await.expect("no panic");
                }
                kib
            }));
            println!("{} {kib}", start.elapsed().as_millis());
        }
        "echo-warren" => warren_hub::run(|| {
            let listener = warren_hub::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            println!("{}", listener.local_addr().expect("an address"));
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                stream.set_nodelay(true).expect("TCP");
                warren_hub::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
                        if (&stream).write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        }),
        "echo-tokio" => tokio().block_on(tokio::task::LocalSet::new().run_until(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            println!("{}", listener.local_addr().expect("an address"));
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("TCP");
                tokio::task::spawn_local(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        })),
        other => panic!("there is no case {other}"),
    }
}

/// Requests per second of a server in a process of its own: one request per connection at a time.
fn echo_requests(case: &str, connections: usize) -> f64 {
    let program = std::env::current_exe().expect("this program has a path");
    let mut server = Command::new(program)
        .args(["--case", case])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let mut addr = String::new();
    let stdout = server.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut addr).expect("an address");
    let mut streams: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(addr.trim()).expect("the server listens");
            stream.set_nodelay(true).expect("TCP");
            stream
        })
        .collect();
    let (request, mut answer) = ([b'x'; ECHO_BYTES], [0; ECHO_BYTES]);
    let (mut count, start) = (0u64, Instant::now());
    while start.elapsed() < ECHO_TIME {
        for stream in &mut streams {
            stream.write_all(&request).expect("the server reads");
        }
        for stream in &mut streams {
            stream.read_exact(&mut answer).expect("the server answers");
        }
        count += connections as u64;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    // It never ends by itself.
    let _ = server.kill();
    let _ = server.wait();
    rate
}

fn own_resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let own = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    own.unwrap_or_else(|| group_resident_kib(std::process::id()))
}
