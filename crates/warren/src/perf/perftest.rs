//! PerfTest's short names of more than one letter, which no option of ours has: a command line written for it works.

use std::ffi::OsString;

/// PerfTest's name, and ours.
const NAMES: &[(&str, &str)] = &[
    ("-ad", "--auto-delete"),
    ("-ca", "--consumer-args"),
    ("-cri", "--connection-recovery-interval"),
    ("-csd", "--consumer-start-delay"),
    ("-ct", "--confirm-timeout"),
    ("-ew", "--exit-when"),
    ("-mp", "--message-properties"),
    ("-ms", "--use-millis"),
    ("-na", "--nack"),
    ("-pi", "--polling-interval"),
    ("-po", "--polling"),
    ("-prsd", "--producer-random-start-delay"),
    ("-qa", "--queue-args"),
    ("-qf", "--queue-file"),
    ("-qp", "--queue-pattern"),
    ("-qpf", "--queue-pattern-from"),
    ("-qpt", "--queue-pattern-to"),
    ("-qq", "--quorum-queue"),
    ("-re", "--requeue"),
    ("-rkcs", "--routing-key-cache-size"),
    ("-sb", "--skip-binding-queues"),
    ("-sco", "--stream-consumer-offset"),
    ("-sq", "--stream-queue"),
    ("-sst", "--servers-startup-timeout"),
    ("-st", "--shutdown-timeout"),
    ("-vl", "--variable-latency"),
    ("-vr", "--variable-rate"),
    ("-vs", "--variable-size"),
];

/// The arguments of a program whose first is `perf`, with our names. `-h` is a URL there, and help here.
pub fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.collect();
    if arguments.get(1).is_none_or(|command| command != "perf") {
        return arguments;
    }
    for at in 2..arguments.len() {
        let is_url = |next: &OsString| next.to_string_lossy().starts_with("amqp");
        let name = match arguments[at].to_str() {
            Some("-h") if arguments.get(at + 1).is_some_and(is_url) => Some("--uri"),
            Some(given) => NAMES.iter().find(|(theirs, _)| *theirs == given).map(|names| names.1),
            None => None,
        };
        if let Some(name) = name {
            arguments[at] = name.into();
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::perf::Options;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    fn changed(line: &str) -> String {
        let arguments = arguments(line.split(' ').map(OsString::from));
        arguments.join(&OsString::from(" ")).into_string().unwrap()
    }

    #[test]
    fn a_line_for_perftest_is_understood() {
        let line = "warren perf -h amqp://a -qp q-%d -qpf 1 -qpt 9 -q 5 -s 12";
        let want = "warren perf --uri amqp://a --queue-pattern q-%d --queue-pattern-from 1 --queue-pattern-to 9 -q 5 -s 12";
        assert_eq!(changed(line), want);
        assert_eq!(changed("warren perf -h"), "warren perf -h");
        assert_eq!(changed("warren get -qp"), "warren get -qp");
    }

    #[test]
    fn each_of_our_names_is_an_option() {
        let command = Alone::command();
        for (theirs, ours) in NAMES {
            let known = command.get_arguments().filter_map(|known| known.get_long());
            assert!(known.into_iter().any(|known| ours[2..] == *known), "{theirs} {ours}");
        }
        assert_eq!(Alone::parse_from(["perf"]).options.producers, 1);
    }
}
