//! The results as Markdown, with the plots beside it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::measure::{Outcome, Plan};
use super::plot::{Plot, number};
use super::{Figure, Peer};
use crate::machine;

/// Writes `runtime.md` and the plots into a folder, or prints the text when there is none.
///
/// # Errors
/// When a file cannot be written.
pub fn write(outcomes: &[Outcome], plan: &Plan, folder: Option<&Path>) -> io::Result<()> {
    if let Some(folder) = folder {
        fs::create_dir_all(folder)?;
    }
    let mut text = heading(plan);
    if !plan.quick {
        text += &targets(outcomes);
    }
    for outcome in outcomes {
        text += &section(outcome, folder)?;
    }
    let Some(folder) = folder else {
        print!("{text}");
        return Ok(());
    };
    let path = folder.join("runtime.md");
    fs::write(&path, text)?;
    println!("{}", path.display());
    Ok(())
}

fn heading(plan: &Plan) -> String {
    let mut peers = vec![
        format!("tokio {}", locked("tokio")),
        format!("may {}", locked("may")),
        format!("corosensei {}", locked("corosensei")),
    ];
    let version = |program: &Option<std::path::PathBuf>, arguments: &[&str]| {
        let output = Command::new(program.as_ref()?).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let gevent = "import gevent, platform; print('gevent', gevent.__version__, 'on Python', platform.python_version())";
    peers.extend(version(&plan.python, &["-c", gevent]));
    peers.extend(version(&plan.go, &["version"]));
    let quick = if plan.quick { "**A quick run, whose figures mean nothing.** " } else { "" };
    format!(
        "# The runtime beside its peers\n\n\
         Written by\n\n```sh\ncargo xtask bench runtime\n```\n\n\
         {quick}{}. {}. Release builds.\n\n\
         Each measurement is made in a process of its own, by the peers in turn. A figure is the median of {} of \
         them; of {} for servers, which are loaded for {:.1} s each. Unless it says otherwise, a peer is bound to one \
         core, so that tokio's multi-thread runtime, may and Go have one worker. Below the tables of a scenario is \
         how far apart the measurements of one cell were at most. Bold is the best of a row.\n\n",
        machine::description(),
        peers.join(", "),
        plan.rounds,
        plan.rounds.div_ceil(2),
        plan.time.as_secs_f64(),
    )
}

/// The version that the lock file has.
fn locked(package: &str) -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let entry =
        lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1));
    version.and_then(|version| version.split('"').next()).unwrap_or("?")
}

fn section(outcome: &Outcome, folder: Option<&Path>) -> io::Result<String> {
    let scenario = outcome.scenario;
    let mut text = format!("## {}\n\n{}\n\n", scenario.title, scenario.story);
    for (index, figure) in scenario.figures.iter().enumerate() {
        text += &table(outcome, index, figure);
        text.push('\n');
        let suffix = if index == 0 { String::new() } else { format!("-{index}") };
        let file = format!("{}{suffix}.svg", scenario.name);
        if let Some(folder) = folder
            && figure.plot
        {
            let plot = Plot {
                title: scenario.title,
                unit: figure.title,
                digits: figure.digits,
                rows: outcome.rows.iter().map(|(size, _)| size.label).collect(),
                peers: outcome
                    .peers
                    .iter()
                    .map(|&peer| (peer, outcome.column(peer, index)))
                    .collect(),
            };
            plot.draw(&folder.join(&file)).map_err(|error| io::Error::other(error.to_string()))?;
            let _ = write!(text, "![{}, {}]({file})\n\n", scenario.title, figure.title);
        }
    }
    let cells = outcome.rows.iter().flat_map(|(_, cells)| cells.iter().flatten());
    let spread = cells.map(|cell| cell.spread).fold(0.0, f64::max);
    let _ = write!(text, "Spread of the first figure: at most {:.0} %.\n\n", spread * 100.0);
    Ok(text)
}

fn table(outcome: &Outcome, index: usize, figure: &Figure) -> String {
    let mut text = format!("| {} |", figure.title);
    for peer in &outcome.peers {
        let _ = write!(text, " {} |", peer.title());
    }
    let _ = write!(text, "\n|---|{}\n", "---:|".repeat(outcome.peers.len()));
    for (size, cells) in &outcome.rows {
        let values: Vec<_> =
            cells.iter().map(|cell| cell.as_ref().map(|cell| cell.figures[index])).collect();
        let better = if figure.more_is_better { f64::max } else { f64::min };
        let best = values.iter().flatten().copied().reduce(better);
        let _ = write!(text, "| {} |", size.label);
        for value in values {
            let shown = value.map_or("–".into(), |value| number(value, figure.digits));
            let mark = if value == best && value.is_some() { "**" } else { "" };
            let _ = write!(text, " {mark}{shown}{mark} |");
        }
        text.push('\n');
    }
    text
}

impl Outcome {
    fn column(&self, peer: Peer, figure: usize) -> Vec<Option<f64>> {
        let column = self.peers.iter().position(|&each| each == peer);
        let of_row = |cells: &Vec<Option<super::measure::Cell>>| {
            Some(cells[column?].as_ref()?.figures[figure])
        };
        self.rows.iter().map(|(_, cells)| of_row(cells)).collect()
    }

    fn figure(&self, n: usize, peer: Peer, figure: usize) -> Option<f64> {
        let row = self.rows.iter().position(|(size, _)| size.n == n)?;
        self.column(peer, figure)[row]
    }
}

/// What was to be reached.
struct Target {
    what: &'static str,
    scenario: &'static str,
    n: usize,
    /// Of the scenario's figures.
    figure: usize,
    goal: Goal,
}

enum Goal {
    /// So many times better than tokio's current thread.
    TimesTokio(f64),
    /// At most this.
    AtMost(f64, &'static str),
}

const TARGETS: &[Target] = &[
    Target {
        what: "spawn and join, beside tokio",
        scenario: "spawn",
        n: 1,
        figure: 0,
        goal: Goal::TimesTokio(4.0),
    },
    Target {
        what: "yield among 1,000, beside tokio",
        scenario: "yield",
        n: 1_000,
        figure: 0,
        goal: Goal::TimesTokio(1.0),
    },
    Target {
        what: "echo, 100 connections: requests per CPU second, beside tokio",
        scenario: "echo",
        n: 100,
        figure: 0,
        goal: Goal::TimesTokio(1.1),
    },
    Target {
        what: "echo, 1,000 connections: requests per CPU second, beside tokio",
        scenario: "echo",
        n: 1_000,
        figure: 0,
        goal: Goal::TimesTokio(1.1),
    },
    Target {
        what: "a million fibers that wait: memory of each",
        scenario: "parked",
        n: 1_000_000,
        figure: 0,
        goal: Goal::AtMost(4.5, "KiB"),
    },
    Target {
        what: "a million fibers that wait: time to create each (3 s for all)",
        scenario: "parked",
        n: 1_000_000,
        figure: 2,
        goal: Goal::AtMost(3_000.0, "ns"),
    },
    Target {
        what: "a timer among a million, set and cancelled",
        scenario: "timers",
        n: 1_000_000,
        figure: 0,
        goal: Goal::AtMost(50.0, "ns"),
    },
    Target { what: "kill", scenario: "kill", n: 1, figure: 0, goal: Goal::AtMost(5_000.0, "ns") },
];

fn targets(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for target in TARGETS {
        let outcome = outcomes.iter().find(|each| each.scenario.name == target.scenario);
        let figure = |peer| outcome?.figure(target.n, peer, target.figure);
        let Some(ours) = figure(Peer::Warren) else { continue };
        let (wanted, reached, met) = match target.goal {
            Goal::TimesTokio(times) => {
                let Some(tokio) = figure(Peer::Tokio) else { continue };
                // All of these are costs.
                let ratio = tokio / ours;
                (format!("{times:.1} times"), format!("{ratio:.2} times"), times <= ratio)
            }
            Goal::AtMost(most, unit) => {
                let shown = |value| format!("{} {unit}", number(value, 2));
                (format!("at most {}", shown(most)), shown(ours), ours <= most)
            }
        };
        let met = if met { "yes" } else { "no" };
        let _ = writeln!(text, "| {} | {wanted} | {reached} | {met} |", target.what);
    }
    if text.is_empty() {
        return text;
    }
    format!("## Targets\n\n| what | wanted | reached | met |\n|---|---:|---:|---|\n{text}\n")
}
