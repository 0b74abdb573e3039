//! The results as Markdown, with the plots beside it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::measure::{Outcome, Plan};
use super::plot::{Plot, number};
use super::targets::targets;
use super::{Figure, Kind, Peer, Suite};
use crate::machine;

/// Writes the suite's report and the plots into a folder, or prints the text when there is none.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(
    suite: &Suite,
    outcomes: &[Outcome],
    plan: &Plan,
    folder: Option<&Path>,
) -> io::Result<()> {
    if let Some(folder) = folder {
        fs::create_dir_all(folder)?;
    }
    let mut text = heading(suite, plan);
    if !plan.quick {
        text += &targets(suite, outcomes);
    }
    for outcome in outcomes {
        text += &section(suite, outcome, folder)?;
    }
    let Some(folder) = folder else {
        print!("{text}");
        return Ok(());
    };
    let path = folder.join(format!("{}.md", suite.name));
    fs::write(&path, text)?;
    println!("{}", path.display());
    Ok(())
}

fn heading(suite: &Suite, plan: &Plan) -> String {
    let quick = if plan.quick { "**A quick run, whose figures mean nothing.** " } else { "" };
    let kinds = || suite.scenarios.iter().map(|scenario| scenario.kind);
    let servers = kinds().any(|kind| matches!(kind, Kind::Server(..)));
    let only_servers = kinds().all(|kind| matches!(kind, Kind::Server(..)));
    let (all, of_servers) = (plan.rounds, plan.server_rounds());
    let load = format!("which are loaded for {:.1} s each", plan.time.as_secs_f64());
    let rounds = match (servers, only_servers) {
        (true, true) => format!("of {of_servers} of them, of servers {load}"),
        (true, false) => format!("of {all} of them; of {of_servers} for servers, {load}"),
        (false, _) => format!("of {all} of them"),
    };
    format!(
        "# {}\n\n\
         Written by\n\n```sh\ncargo xtask bench {}\n```\n\n\
         {quick}{}. {}Release builds.\n\n\
         Each measurement is made in a process of its own, by the peers in turn. A figure is the median {rounds}. \
         {} Below the tables of a scenario is how far apart the measurements of one cell were at most. Bold is the \
         best of a row.\n\n",
        suite.title,
        suite.name,
        machine::description(),
        match versions(suite, plan) {
            versions if versions.is_empty() => String::new(),
            versions => format!("{}. ", versions.join(", ")),
        },
        suite.story,
    )
}

/// What is compared, with versions.
fn versions(suite: &Suite, plan: &Plan) -> Vec<String> {
    let measured = |peer: &Peer| suite.scenarios.iter().any(|each| each.peers.contains(peer));
    let said = |program: &Option<std::path::PathBuf>, arguments: &[&str]| {
        let output = Command::new(program.as_ref()?).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let python = |package: &str| {
        let words = format!(
            "from importlib.metadata import version as v; import platform as p; print('{package}', v('{package}'), \
             'on Python', p.python_version())"
        );
        said(&plan.python, &["-c", &words])
    };
    let version = |&(peer, package): &(Peer, &str)| {
        if !measured(&peer) {
            return None;
        }
        match peer {
            Peer::Go => said(&plan.go, &["version"]),
            peer if peer.is_python() => python(package),
            _ => Some(format!("{package} {}", locked(package))),
        }
    };
    let packages = [
        (Peer::Tokio, "tokio"),
        (Peer::May, "may"),
        (Peer::Corosensei, "corosensei"),
        (Peer::Gevent, "gevent"),
        (Peer::Twisted, "Twisted"),
        (Peer::Uvloop, "uvloop"),
        (Peer::Go, "go"),
    ];
    packages.iter().filter_map(version).collect()
}

/// The version that the lock file has.
fn locked(package: &str) -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let entry =
        lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1));
    version.and_then(|version| version.split('"').next()).unwrap_or("?")
}

fn section(suite: &Suite, outcome: &Outcome, folder: Option<&Path>) -> io::Result<String> {
    let scenario = outcome.scenario;
    let mut text = format!("## {}\n\n{}\n\n", scenario.title, scenario.story);
    for (index, figure) in scenario.figures.iter().enumerate() {
        text += &table(outcome, index, figure);
        text.push('\n');
        let suffix = if index == 0 { String::new() } else { format!("-{index}") };
        let file = format!("{}{}{suffix}.svg", suite.plots, scenario.name);
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
    for failure in &outcome.failures {
        let _ = writeln!(text, "- Not measured: {failure}");
    }
    if !outcome.failures.is_empty() {
        text.push('\n');
    }
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

    pub(super) fn figure(&self, n: usize, peer: Peer, figure: usize) -> Option<f64> {
        let row = self.rows.iter().position(|(size, _)| size.n == n)?;
        self.column(peer, figure)[row]
    }
}
