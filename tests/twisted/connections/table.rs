//! The table: connections.txt.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

const TABLE: &str = include_str!("../connections.txt");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// A case of the table.
pub(super) struct Case {
    marks: Vec<&'static str>,
    pub(super) rules: Vec<Rule>,
    /// What we say where Twisted says something else.
    pub(super) instead: Option<Vec<&'static str>>,
}

/// What is to be done when something happens.
pub(super) struct Rule {
    pub(super) side: Side,
    pub(super) event: &'static str,
    pub(super) actions: Vec<&'static str>,
    /// Whether what is done `once` has been done.
    pub(super) done: Rc<Cell<bool>>,
}

impl Case {
    pub(super) fn has(&self, mark: &str) -> bool {
        self.marks.contains(&mark)
    }

    pub(super) fn waits_for(&self, side: Side, event: &str) -> bool {
        self.rules.iter().any(|rule| rule.side == side && rule.event == event)
    }
}

#[track_caller]
pub(super) fn case(name: &str) -> Case {
    let heading = format!("\n== {name}\n");
    let (_, rest) = TABLE.split_once(&heading).expect("a case of that name");
    let lines = rest.split("\n== ").next().unwrap_or_default().lines();
    let mut case = Case { marks: Vec::new(), rules: Vec::new(), instead: None };
    for line in lines.filter(|line| !line.is_empty()) {
        if line.starts_with("differs: ") {
            case.instead = Some(Vec::new());
        } else if let Some(instead) = line.strip_prefix("> ") {
            case.instead.get_or_insert_default().push(instead);
        } else if let Some((event, actions)) = line.split_once(": ") {
            let (side, event) = event.split_once(' ').expect("a side and an event");
            case.rules.push(Rule {
                side: match side {
                    "client" => Side::Client,
                    "server" => Side::Server,
                    other => panic!("connections.txt: no side {other:?}"),
                },
                event,
                actions: actions.split(';').map(str::trim).collect(),
                done: Rc::default(),
            });
        } else {
            case.marks.push(line);
        }
    }
    case
}
