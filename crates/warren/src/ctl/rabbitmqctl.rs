//! `warren ctl`: rabbitmqctl's commands and arguments, so that habits and scripts go on working.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::Value;
use warren_broker::admin::Request;

use super::server::Server;
use super::{json, object, output, secret};
use crate::client::print;

/// `warren ctl COMMAND ARGUMENTS`.
#[derive(Args)]
pub(crate) struct Rabbitmqctl {
    #[command(flatten)]
    server: Server,
    /// The command, its arguments and its options, as rabbitmqctl has them
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Options that stand anywhere.
#[derive(Debug, Default, PartialEq)]
struct Options {
    vhost: Option<String>,
    priority: i64,
    apply_to: Option<String>,
    description: Option<String>,
    /// Separated by commas.
    tags: Option<String>,
    default_queue_type: Option<String>,
    json: bool,
    no_headers: bool,
    if_empty: bool,
    if_unused: bool,
}

impl Options {
    fn vhost(&self) -> String {
        self.vhost.clone().unwrap_or_else(|| "/".into())
    }
}

/// What is to be printed of an answer.
enum Shown {
    Table(Vec<String>),
    Done,
    Export(Option<PathBuf>),
    Import(Option<PathBuf>),
}

impl Rabbitmqctl {
    pub(crate) fn run(self) -> Result<()> {
        let (words, options) = split(self.words)?;
        let Some((command, arguments)) = words.split_first() else {
            bail!("name a command: `warren ctl help` lists them");
        };
        if command == "help" {
            for (command, usage) in USAGE {
                print(format!("{command} {usage}").trim_end().as_bytes())?;
            }
            return Ok(());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (request, shown) = translate(command, &arguments, &options)?;
        match (shown, request) {
            (Shown::Export(file), _) => self.server.export(options.vhost, file),
            (Shown::Import(file), _) => self.server.import(options.vhost, file),
            (Shown::Done, Some(request)) => self.server.ask(&request).map(drop),
            (Shown::Table(columns), Some(request)) => {
                let answer = self.server.ask(&request)?;
                show(&answer, &columns, self.server.json || options.json, !options.no_headers)
            }
            (_, None) => Ok(()),
        }
    }
}

fn show(answer: &Value, columns: &[String], as_json: bool, headers: bool) -> Result<()> {
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    if let Some(Value::Object(row)) = answer.get(0) {
        // No error: scripts ask for what RabbitMQ alone has.
        for unknown in columns.iter().filter(|column| !row.contains_key(**column)) {
            let known: Vec<&str> = row.keys().map(String::as_str).collect();
            eprintln!(
                "there is no column '{unknown}', which stays empty: there are {}",
                known.join(", ")
            );
        }
    }
    if !as_json {
        return output::print_answer(answer, &columns, headers);
    }
    let chosen = match answer {
        Value::Array(rows) => rows
            .iter()
            .map(|row| {
                let cells = columns.iter().map(|name| ((*name).to_owned(), row[*name].clone()));
                Value::Object(cells.collect())
            })
            .collect(),
        other => other.clone(),
    };
    print(serde_json::to_string(&chosen)?.as_bytes()).map(drop)
}

/// Words and options apart.
fn split(all: Vec<String>) -> Result<(Vec<String>, Options)> {
    let mut options = Options::default();
    let mut words = Vec::new();
    let mut rest = all.into_iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            words.extend(rest.by_ref());
            break;
        }
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || {
            inline.clone().or_else(|| rest.next()).ok_or_else(|| anyhow!("{name} needs a value"))
        };
        match name {
            "-p" | "--vhost" => options.vhost = Some(value()?),
            "--priority" => {
                let text = value()?;
                options.priority =
                    text.parse().map_err(|_| anyhow!("{text} priority must be a number"))?;
            }
            "--apply-to" => options.apply_to = Some(value()?),
            "--description" => options.description = Some(value()?),
            "--tags" => options.tags = Some(value()?),
            "--default-queue-type" => options.default_queue_type = Some(value()?),
            "--formatter" => options.json = value()? == "json",
            // Our node is the one whose socket it is, and it answers at once.
            "-n" | "--node" | "-t" | "--timeout" => drop(value()?),
            "-q" | "--quiet" | "--no-table-headers" | "-s" | "--silent" | "--offline"
            | "--online" | "--local" => {
                options.no_headers |= matches!(name, "-s" | "--silent" | "--no-table-headers");
            }
            "-e" | "--if-empty" => options.if_empty = true,
            "-u" | "--if-unused" => options.if_unused = true,
            _ => words.push(word),
        }
    }
    Ok((words, options))
}

type Translated = Result<(Option<Request>, Shown)>;

fn done(request: Request) -> Translated {
    Ok((Some(request), Shown::Done))
}

fn table(request: Request, columns: &[&str]) -> Translated {
    let columns = columns.iter().map(|column| text(column)).collect();
    Ok((Some(request), Shown::Table(columns)))
}

/// A table with the columns that the arguments name.
fn chosen(arguments: &[&str], request: Request, default: &[&str]) -> Translated {
    table(request, if arguments.is_empty() { default } else { arguments })
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// What a command asks for.
fn translate(command: &str, arguments: &[&str], options: &Options) -> Translated {
    use Request as R;
    match (command, arguments) {
        ("add_user", [name, rest @ ..]) if rest.len() <= 1 => {
            let password = secret(rest.first().copied().map(text))?;
            done(R::AddUser { name: text(name), password, tags: Vec::new() })
        }
        ("delete_user", [name]) => done(R::DeleteUser { name: text(name) }),
        ("change_password", [name, rest @ ..]) if rest.len() <= 1 => {
            let password = secret(rest.first().copied().map(text))?;
            done(R::ChangePassword { name: text(name), password })
        }
        ("clear_password", [name]) => done(R::ClearPassword { name: text(name) }),
        ("authenticate_user", [name, rest @ ..]) if rest.len() <= 1 => {
            let password = secret(rest.first().copied().map(text))?;
            done(R::AuthenticateUser { name: text(name), password })
        }
        ("set_user_tags", [name, tags @ ..]) => {
            // Both ways of writing them are in use.
            let tags = tags.iter().flat_map(|tags| tags.split(',')).filter(|tag| !tag.is_empty());
            done(R::SetUserTags { name: text(name), tags: tags.map(text).collect() })
        }
        ("list_users", []) => table(R::ListUsers, output::USERS),
        ("set_permissions", [user, configure, write, read]) => done(R::SetPermissions {
            user: text(user),
            vhost: options.vhost(),
            configure: text(configure),
            write: text(write),
            read: text(read),
        }),
        ("clear_permissions", [user]) => {
            done(R::ClearPermissions { user: text(user), vhost: options.vhost() })
        }
        ("list_permissions", []) => {
            let request = R::ListPermissions { user: None, vhost: Some(options.vhost()) };
            table(request, &["user", "configure", "write", "read"])
        }
        ("list_user_permissions", [user]) => {
            let request = R::ListPermissions { user: Some(text(user)), vhost: None };
            table(request, &["vhost", "configure", "write", "read"])
        }
        ("set_topic_permissions", [user, exchange, write, read]) => done(R::SetTopicPermissions {
            user: text(user),
            vhost: options.vhost(),
            exchange: text(exchange),
            write: text(write),
            read: text(read),
        }),
        ("clear_topic_permissions", [user, rest @ ..]) if rest.len() <= 1 => {
            let exchange = rest.first().copied().map(text);
            done(R::ClearTopicPermissions { user: text(user), vhost: options.vhost(), exchange })
        }
        ("list_topic_permissions", []) => {
            let request = R::ListTopicPermissions { user: None, vhost: Some(options.vhost()) };
            table(request, &["user", "exchange", "write", "read"])
        }
        ("list_user_topic_permissions", [user]) => {
            let request = R::ListTopicPermissions { user: Some(text(user)), vhost: None };
            table(request, &["vhost", "exchange", "write", "read"])
        }
        ("set_user_limits", [name, limits]) => {
            done(R::SetUserLimits { name: text(name), limits: object(limits)? })
        }
        ("clear_user_limits", [name, limit]) => {
            let which = match *limit {
                "all" => "{\"max-connections\": -1, \"max-channels\": -1}".to_owned(),
                limit => serde_json::json!({ limit: -1 }).to_string(),
            };
            done(R::SetUserLimits { name: text(name), limits: object(&which)? })
        }
        ("add_vhost", [name]) => {
            let tags = options.tags.iter().flat_map(|tags| tags.split(','));
            done(R::AddVhost {
                name: text(name),
                description: options.description.clone().unwrap_or_default(),
                tags: tags.map(|tag| text(tag.trim())).collect(),
                default_queue_type: options.default_queue_type.clone(),
            })
        }
        ("delete_vhost", [name]) => done(R::DeleteVhost { name: text(name) }),
        ("trace_on", []) => done(R::TraceOn { vhost: options.vhost() }),
        ("trace_off", []) => done(R::TraceOff { vhost: options.vhost() }),
        ("list_vhosts", _) => chosen(arguments, R::ListVhosts, &["name"]),
        ("set_vhost_limits", [limits]) => {
            done(R::SetVhostLimits { vhost: options.vhost(), limits: object(limits)? })
        }
        ("clear_vhost_limits", []) => done(R::ClearVhostLimits { vhost: options.vhost() }),
        ("list_vhost_limits", []) => {
            table(R::ListVhostLimits { vhost: options.vhost.clone() }, &["vhost", "limits"])
        }
        _ => translate_more(command, arguments, options),
    }
}

fn translate_more(command: &str, arguments: &[&str], options: &Options) -> Translated {
    use Request as R;
    let file = |arguments: &[&str]| arguments.first().map(PathBuf::from);
    match (command, arguments) {
        ("set_policy" | "set_operator_policy", [name, pattern, definition]) => done(R::SetPolicy {
            vhost: options.vhost(),
            name: text(name),
            pattern: text(pattern),
            definition: object(definition)?,
            priority: options.priority,
            apply_to: options.apply_to.clone().unwrap_or_else(|| "all".into()),
            operator: command == "set_operator_policy",
        }),
        ("clear_policy" | "clear_operator_policy", [name]) => done(R::ClearPolicy {
            vhost: options.vhost(),
            name: text(name),
            operator: command == "clear_operator_policy",
        }),
        ("list_policies" | "list_operator_policies", []) => {
            let operator = command == "list_operator_policies";
            chosen(
                arguments,
                R::ListPolicies { vhost: Some(options.vhost()), operator },
                output::POLICIES,
            )
        }
        ("set_parameter", [component, name, value]) => done(R::SetParameter {
            vhost: options.vhost(),
            component: text(component),
            name: text(name),
            value: json(value)?,
        }),
        ("clear_parameter", [component, name]) => done(R::ClearParameter {
            vhost: options.vhost(),
            component: text(component),
            name: text(name),
        }),
        ("list_parameters", []) => chosen(
            arguments,
            R::ListParameters { vhost: Some(options.vhost()) },
            &["component", "name", "value"],
        ),
        ("set_global_parameter", [name, value]) => {
            done(R::SetGlobalParameter { name: text(name), value: json(value)? })
        }
        ("clear_global_parameter", [name]) => done(R::ClearGlobalParameter { name: text(name) }),
        ("list_global_parameters", []) => {
            chosen(arguments, R::ListGlobalParameters, &["name", "value"])
        }
        ("export_definitions", file_of @ ([] | [_])) => Ok((None, Shown::Export(file(file_of)))),
        ("import_definitions", file_of @ ([] | [_])) => Ok((None, Shown::Import(file(file_of)))),
        ("list_queues", _) => {
            chosen(arguments, R::ListQueues { vhost: Some(options.vhost()) }, &["name", "messages"])
        }
        ("delete_queue", [name]) => done(R::DeleteQueue {
            vhost: options.vhost(),
            name: text(name),
            if_empty: options.if_empty,
            if_unused: options.if_unused,
        }),
        ("purge_queue", [name]) => done(R::PurgeQueue { vhost: options.vhost(), name: text(name) }),
        ("list_exchanges", _) => {
            chosen(arguments, R::ListExchanges { vhost: Some(options.vhost()) }, &["name", "type"])
        }
        ("list_bindings", _) => chosen(
            arguments,
            R::ListBindings { vhost: Some(options.vhost()) },
            &[
                "source_name",
                "source_kind",
                "destination_name",
                "destination_kind",
                "routing_key",
                "arguments",
            ],
        ),
        ("list_connections", _) => {
            chosen(arguments, R::ListConnections, &["user", "name", "channels", "state"])
        }
        ("set_vm_memory_high_watermark", [limit] | ["absolute", limit]) => {
            done(R::SetMemoryLimit { limit: text(limit) })
        }
        ("set_disk_free_limit", [limit]) => done(R::SetDiskFreeLimit { limit: text(limit) }),
        ("close_connection", [pid, reason @ ..]) => {
            done(R::CloseConnection { pid: text(pid), reason: reason.join(" ") })
        }
        ("list_channels", _) => chosen(
            arguments,
            R::ListChannels,
            &["pid", "user", "consumer_count", "messages_unacknowledged"],
        ),
        ("list_consumers", _) => {
            chosen(arguments, R::ListConsumers { vhost: Some(options.vhost()) }, output::CONSUMERS)
        }
        ("status", []) => chosen(arguments, R::Status, &[]),
        _ => match USAGE.iter().find(|(known, _)| *known == command) {
            Some((_, usage)) => bail!("write it so: warren ctl {command} {usage}"),
            None => bail!(
                "'{command}' is no command known here: `warren ctl help` lists those that are"
            ),
        },
    }
}

/// The commands, and what they are to be told.
const USAGE: &[(&str, &str)] = &[
    ("add_user", "NAME [PASSWORD]"),
    ("delete_user", "NAME"),
    ("change_password", "NAME [PASSWORD]"),
    ("clear_password", "NAME"),
    ("authenticate_user", "NAME [PASSWORD]"),
    ("set_user_tags", "NAME [TAG...]"),
    ("list_users", ""),
    ("set_permissions", "[-p VHOST] USER CONFIGURE WRITE READ"),
    ("clear_permissions", "[-p VHOST] USER"),
    ("list_permissions", "[-p VHOST]"),
    ("list_user_permissions", "USER"),
    ("set_topic_permissions", "[-p VHOST] USER EXCHANGE WRITE READ"),
    ("clear_topic_permissions", "[-p VHOST] USER [EXCHANGE]"),
    ("list_topic_permissions", "[-p VHOST]"),
    ("list_user_topic_permissions", "USER"),
    ("set_user_limits", "USER JSON"),
    ("clear_user_limits", "USER LIMIT|all"),
    ("add_vhost", "NAME [--description TEXT] [--tags TAG,...] [--default-queue-type TYPE]"),
    ("delete_vhost", "NAME"),
    ("list_vhosts", "[COLUMN...]"),
    ("set_vhost_limits", "[-p VHOST] JSON"),
    ("clear_vhost_limits", "[-p VHOST]"),
    ("list_vhost_limits", "[-p VHOST]"),
    ("trace_on", "[-p VHOST]"),
    ("trace_off", "[-p VHOST]"),
    ("set_policy", "[-p VHOST] [--priority N] [--apply-to WHAT] NAME PATTERN JSON"),
    ("clear_policy", "[-p VHOST] NAME"),
    ("list_policies", "[-p VHOST]"),
    ("set_operator_policy", "[-p VHOST] [--priority N] [--apply-to WHAT] NAME PATTERN JSON"),
    ("clear_operator_policy", "[-p VHOST] NAME"),
    ("list_operator_policies", "[-p VHOST]"),
    ("set_parameter", "[-p VHOST] COMPONENT NAME JSON"),
    ("clear_parameter", "[-p VHOST] COMPONENT NAME"),
    ("list_parameters", "[-p VHOST]"),
    ("set_global_parameter", "NAME JSON"),
    ("clear_global_parameter", "NAME"),
    ("list_global_parameters", ""),
    ("export_definitions", "[FILE]"),
    ("import_definitions", "[FILE]"),
    ("list_queues", "[-p VHOST] [COLUMN...]"),
    ("delete_queue", "[-p VHOST] NAME [--if-empty] [--if-unused]"),
    ("purge_queue", "[-p VHOST] NAME"),
    ("list_exchanges", "[-p VHOST] [COLUMN...]"),
    ("list_bindings", "[-p VHOST] [COLUMN...]"),
    ("list_connections", "[COLUMN...]"),
    ("close_connection", "PID [REASON]"),
    ("list_channels", "[COLUMN...]"),
    ("list_consumers", "[-p VHOST] [COLUMN...]"),
    ("set_vm_memory_high_watermark", "SHARE|SIZE"),
    ("set_disk_free_limit", "SIZE"),
    ("status", ""),
];

#[cfg(test)]
mod tests {
    use warren_broker::admin::Request;

    use super::{Options, USAGE, split, translate};

    fn request(line: &str) -> Result<Request, String> {
        let words = line.split(' ').map(str::to_owned).collect();
        let (words, options) = split(words).map_err(|error| error.to_string())?;
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let (request, _) = translate(&words[0], &arguments, &options).map_err(|e| e.to_string())?;
        request.ok_or_else(|| "no request".into())
    }

    #[test]
    fn every_command_takes_what_its_usage_says() {
        for (command, usage) in USAGE {
            // What stands in brackets may be left out.
            let parts = usage.split('[').map(|part| part.rsplit(']').next().unwrap_or_default());
            let words = parts.flat_map(str::split_whitespace);
            let words: Vec<&str> =
                words.map(|word| if word == "JSON" { "{}" } else { "x" }).collect();
            // A password that is left out would be read from here.
            let words = if usage.contains("[PASSWORD]") { vec!["x", "y"] } else { words };
            let outcome = translate(command, &words, &Options::default());
            assert!(outcome.is_ok(), "{command} {words:?}");
        }
    }

    #[test]
    fn options_stand_anywhere() {
        for line in [
            "set_policy -p v --priority 7 --apply-to queues name ^q {\"max-length\":1}",
            "set_policy name ^q {\"max-length\":1} --apply-to=queues --priority=7 --vhost v -q",
        ] {
            let Ok(Request::SetPolicy { vhost, name, pattern, priority, apply_to, .. }) =
                request(line)
            else {
                panic!("{line}");
            };
            assert_eq!((vhost, name, pattern), ("v".into(), "name".into(), "^q".into()));
            assert_eq!((priority, apply_to.as_str()), (7, "queues"));
        }
    }

    #[test]
    fn what_is_no_command_is_named() {
        let error = request("add_uesr a b").unwrap_err();
        assert!(error.contains("'add_uesr' is no command"), "{error}");
        let error = request("set_permissions a").unwrap_err();
        assert!(error.ends_with("set_permissions [-p VHOST] USER CONFIGURE WRITE READ"), "{error}");
        let error = request("set_policy --priority x n p {}").unwrap_err();
        assert_eq!(error, "x priority must be a number");
        assert!(request("set_permissions a b").is_err());
    }
}
