//! Messages per second through Warren and through RabbitMQ, with the same load in the same run.
//!
//! `cargo xtask bench broker` starts both and runs this.

use std::time::Duration;

use clap::Parser;
use warren_benches::load::{Case, Client, throughput};
use warren_benches::machine::{self, ProcessGroup};
use warren_benches::table::{median, row, thousands};

/// Compares two brokers.
#[derive(Parser)]
struct Arguments {
    /// Warren.
    #[arg(long, env = "WARREN_URL")]
    warren: String,
    /// Its process group.
    #[arg(long, env = "WARREN_PID")]
    warren_pid: u32,
    /// RabbitMQ.
    #[arg(long, env = "RABBITMQ_URL")]
    rabbitmq: String,
    /// Its process group.
    #[arg(long, env = "RABBITMQ_PID")]
    rabbitmq_pid: u32,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Of how many the median is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    println!("{}\n", machine::description());
    // First, while the servers hold no memory that load has left behind.
    println!("| KiB resident per idle connection, one channel each | Warren | RabbitMQ | ratio |");
    println!("|---|---:|---:|---:|");
    let ours = idle(&arguments.warren, arguments.warren_pid, 5_000)?;
    let theirs = idle(&arguments.rabbitmq, arguments.rabbitmq_pid, 1_000)?;
    println!(
        "{}",
        row("5,000 and 1,000 connections", ours, theirs, false, |kib| format!("{kib:.1}"))
    );
    println!();
    println!("| messages/s, published and consumed | Warren | RabbitMQ | ratio |");
    println!("|---|---:|---:|---:|");
    for (persistent, name) in [(false, "transient"), (true, "persistent, confirmed")] {
        for queues in [1, 4] {
            for body_bytes in [16, 1024] {
                let case = Case { body_bytes, queues, persistent };
                let what = format!(
                    "{name}, {body_bytes} B, {queues} queue{}",
                    if queues > 1 { "s" } else { "" }
                );
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                // In turn, so that what else the machine does falls on both.
                for _ in 0..arguments.rounds {
                    let time = Duration::from_secs(arguments.seconds);
                    ours.push(throughput(&arguments.warren, case, time)?);
                    theirs.push(throughput(&arguments.rabbitmq, case, time)?);
                }
                println!("{}", row(&what, median(ours), median(theirs), true, thousands));
            }
        }
    }
    Ok(())
}

/// KiB per connection.
fn idle(url: &str, group: u32, count: usize) -> std::io::Result<f64> {
    let resident_kib = || ProcessGroup(group).resident_bytes() / 1024.0;
    let before = resident_kib();
    let clients = (0..count).map(|_| Client::open(url)).collect::<Result<Vec<_>, _>>()?;
    let after = resident_kib();
    drop(clients);
    Ok((after - before).max(0.0) / count as f64)
}
