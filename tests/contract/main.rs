//! The contract, case by case: one set of tables that says what a broker does, run against a real RabbitMQ and
//! against Warren.
//!
//! The tables are the `.txt` files beside this one, a file per area. A case begins with `== NAME`; the line after
//! it tells the row of the contract that it proves; the rest are steps, a line each. `# ` begins a comment.
//!
//! ```text
//! == a queue that is missing
//! A2 declare
//! queue.declare $q passive
//! ! 404 no queue '$q' in vhost '/'
//! ```
//!
//! **Names.** `$q` is a name that no other case uses, or what `?q` in an expectation has captured.
//!
//! **Rows.** `each PATTERN KEY`, followed by lines `| # | a.b`, makes a case of each line, with `<PATTERN>` and
//! `<KEY>` replaced.
//!
//! **Differences.** `on rabbitmq: STEP` and `on warren: STEP` are done on one broker only; `only warren: WHY` and
//! `only rabbitmq: WHY` hold for a whole case.
//!
//! **Where.** A step is about connection `a` and its channel 1, unless it begins with `b:`, `2:` or `b.2:`.
//! Connections (as guest, virtual host /) and channels open at their first use, and after a channel's death again.
//!
//! **Sending.** The name of any method, its fields in order or as `name=value`, its bits by their names, its table
//! in braces; of a content also properties by name, `persistent` and `body=TEXT`. Where the method has an answer, it
//! is waited for, unless the next step is an expectation at the same place.
//!
//! **Values.** Digits are a number (32 bits if it fits; compared, any whole number), `u8(1)` `i64(1)` `f64(1.5)`
//! `ts(1)` `decimal(2 314)` `bytes(x)` of that type, `text(1)` a text of digits, `void`, `true`, `x*1000`, `"\x00"`.
//! Compared: `?` anything, `?name` captured, `...` in a text any part of it, `{a: 1, ...}` with more entries.
//!
//! **Expecting.**
//!
//! | step | what |
//! |---|---|
//! | `< METHOD FIELDS` | the next method of that name has these fields; `-expiration`: not that property; `exactly`: no other properties |
//! | `<< METHOD FIELDS` | and it is the very next on the channel |
//! | `wait METHOD FIELDS` | one of the next methods of that name has; those before are read over |
//! | `! CODE [TEXT]` | the channel is closed because of the last method sent, or because of `!(60.40)` |
//! | `!! CODE [TEXT]` | the connection is, and ends |
//! | `nothing [QUEUE]` | two round trips (asking for the queue) bring nothing else |
//! | `count QUEUE MESSAGES [CONSUMERS]` | as soon as it has that many |
//! | `get QUEUE FIELDS`, `get QUEUE empty` | a message is taken as soon as there is one; there is none now |
//! | `take QUEUE BODIES` | these, in this order, and then none |
//! | `exists queue NAME`, `missing exchange NAME` | as soon as it is so |
//! | `unroutable EXCHANGE KEY` | as soon as a mandatory message is returned |
//! | `gone` | the other side ends the stream |
//! | `greeting "BYTES"` | these and no more, then the end |
//! | `heartbeat` | one comes |
//!
//! **Doing.** `publish EXCHANGE KEY ...` publishes on a channel of its own and waits for the confirm (`nacked`, and
//! `returned` before it, where that is expected). `connect NAME user= password= vhost= mechanism= channel_max= frame_max=
//! heartbeat= capabilities={}`; `socket NAME` connects and says nothing; `bytes "..."`, `frame KIND "PAYLOAD" [END]`,
//! `header class= size=` send what no client would. `close`, `drop` (the socket alone). `repeat N STEP`, where `%n`
//! counts from 0.
//!
//! **Managing.** `user NAME PASSWORD TAGS`, `password NAME PASSWORD`, `permission USER VHOST CONFIGURE WRITE READ`, `topic-permission USER VHOST
//! EXCHANGE WRITE READ`, `vhost NAME` (guest may do all in it), `vhost-limit VHOST NAME VALUE`, `user-limit USER NAME
//! VALUE`, `policy` and `operator-policy VHOST NAME PATTERN APPLY-TO PRIORITY JSON`, `trace on VHOST`, `delete
//! KIND NAME`.
//!
//! Cases run in parallel; words on the command line choose those whose names contain one of them. The broker is a
//! Warren of our own, or the RabbitMQ that `WARREN_TEST_AMQP_URL` and `WARREN_TEST_RABBITMQ_API` name.

mod language;
mod manage;
mod methods;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod values;
mod wire;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use language::Case;
use manage::Broker;

/// Cases that run at a time: they mostly wait.
const WORKERS: usize = 8;

/// How long anything may take. `WARREN_TEST_PATIENCE_S` changes it.
pub(crate) fn patience() -> Duration {
    let given = std::env::var("WARREN_TEST_PATIENCE_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(60))
}

fn main() -> ExitCode {
    let mut cases = match read() {
        Ok(cases) => cases,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let all = cases.len();
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|word| case.name.contains(*word)));
    if arguments.iter().any(|word| word == "--list") {
        cases.iter().for_each(|case| println!("{}: test ({})", case.name, case.row));
        return ExitCode::SUCCESS;
    }
    let (broker, _own) = Broker::get();
    let filtered = all - cases.len();
    cases.retain(|case| case.only.as_ref().is_none_or(|(side, _)| *side == broker.side));
    let others = all - filtered - cases.len();
    println!("\nrunning {} cases; {others} are for the other broker alone", cases.len());
    let start = Instant::now();
    let failed = run(&broker, &cases);
    for error in &failed {
        println!("\n---- {error}");
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out; \
         finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        cases.len() - failed.len(),
        failed.len(),
        start.elapsed().as_secs_f32()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All cases of all tables. Two of one name are an error.
fn read() -> Result<Vec<Case>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/contract");
    let entries = std::fs::read_dir(&folder).map_err(|error| error.to_string())?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        cases.extend(language::cases(&name, &text)?);
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("two cases are called {}", pair[0])),
        None => Ok(cases),
    }
}

/// Runs them, and returns what went wrong.
fn run(broker: &Broker, cases: &[Case]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let seed = std::process::id();
    let work = || {
        let mut failed = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(at) else { return failed };
            let outcome = steps::run(broker, case, format!("c{seed}x{at}"));
            println!("test {} ... {}", case.name, if outcome.is_ok() { "ok" } else { "FAILED" });
            if let Err(error) = outcome {
                failed.push(format!("{} ({})\n{error}", case.name, case.row));
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no step panics")).collect()
    })
}
