//! The broker under test, and its management: RabbitMQ's through the HTTP API of its plugin, as rabbitmqctl takes
//! a second to start; Warren's through `warren ctl`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::support::{Server, warren};

/// Which broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    RabbitMq,
    Warren,
}

/// The broker under test.
pub(crate) struct Broker {
    pub(crate) side: Side,
    pub(crate) address: String,
    /// `HOST:PORT` of RabbitMQ's management.
    api: String,
    /// Warren's data directory, where its control socket is.
    data_dir: PathBuf,
}

/// A server of our own, which ends when this is dropped.
pub(crate) struct Own {
    _server: Server,
    _folder: tempfile::TempDir,
}

impl Broker {
    /// RabbitMQ, where the environment names it, or a Warren of our own.
    pub(crate) fn get() -> (Self, Option<Own>) {
        let address =
            |url: &str| url.trim_start_matches("amqp://").trim_end_matches('/').to_owned();
        match (std::env::var("WARREN_TEST_AMQP_URL"), std::env::var("WARREN_TEST_RABBITMQ_API")) {
            (Ok(url), Ok(api)) => {
                let api = api.trim_start_matches("http://").trim_end_matches('/').to_owned();
                let (side, data_dir) = (Side::RabbitMq, PathBuf::new());
                (Self { side, address: address(&url), api, data_dir }, None)
            }
            _ => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let server = Server::start(folder.path());
                let address = address(&server.url);
                let (side, data_dir) = (Side::Warren, folder.path().to_owned());
                let broker = Self { side, address, api: String::new(), data_dir };
                (broker, Some(Own { _server: server, _folder: folder }))
            }
        }
    }

    /// Does one management step; `None`: it is none.
    pub(crate) fn manage(&self, words: &[String]) -> Option<Result<(), String>> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let calls = match self.side {
            Side::RabbitMq => return requests(&words).map(|requests| self.request_all(&requests)),
            Side::Warren => commands(&words)?,
        };
        Some(calls.iter().try_for_each(|call| self.ctl(call)))
    }

    fn ctl(&self, words: &[&str]) -> Result<(), String> {
        let mut command = warren();
        command.args(["ctl", "--data-dir"]).arg(&self.data_dir).args(words);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("warren ctl {words:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    fn request_all(&self, requests: &[Request]) -> Result<(), String> {
        requests.iter().try_for_each(|(verb, path, body)| {
            let status = self.request(verb, path, body)?;
            if (200..300).contains(&status) {
                return Ok(());
            }
            Err(format!("{verb} {path} {body}: status {status}"))
        })
    }

    /// One at a time: RabbitMQ notes which virtual hosts are traced in one list, which it reads, changes and
    /// writes back, so that of two changes at once it may lose one.
    fn request(&self, verb: &str, path: &str, body: &str) -> Result<u16, String> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: std::io::Error| format!("{}: {error}", self.api);
        let mut stream = TcpStream::connect(&self.api).map_err(failed)?;
        // guest:guest
        let request = format!(
            "{verb} /api/{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.api,
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or(format!("no HTTP: {answer}"))
    }
}

/// Verb, path below `/api/`, JSON.
type Request = (&'static str, String, String);

/// What a step is in RabbitMQ's HTTP API.
fn requests(words: &[&str]) -> Option<Vec<Request>> {
    let put = |path: String, body: String| Some(vec![("PUT", path, body)]);
    let delete = |path: String| Some(vec![("DELETE", path, String::new())]);
    match words {
        ["password", name, password] => {
            let body = format!("{{\"password\":\"{}\",\"tags\":\"\"}}", json(password));
            put(format!("users/{}", escape(name)), body)
        }
        ["user", name, password, tags @ ..] => put(
            format!("users/{}", escape(name)),
            format!("{{\"password\": \"{password}\", \"tags\": \"{}\"}}", tags.join(",")),
        ),
        ["permission", user, vhost, configure, write, read] => put(
            format!("permissions/{}/{}", escape(vhost), escape(user)),
            format!(
                "{{\"configure\": \"{}\", \"write\": \"{}\", \"read\": \"{}\"}}",
                json(configure),
                json(write),
                json(read)
            ),
        ),
        ["topic-permission", user, vhost, exchange, write, read] => put(
            format!("topic-permissions/{}/{}", escape(vhost), escape(user)),
            format!(
                "{{\"exchange\": \"{exchange}\", \"write\": \"{}\", \"read\": \"{}\"}}",
                json(write),
                json(read)
            ),
        ),
        ["vhost", name] => {
            let all = r#"{"configure": ".*", "write": ".*", "read": ".*"}"#;
            Some(vec![
                ("PUT", format!("vhosts/{}", escape(name)), "{}".into()),
                ("PUT", format!("permissions/{}/guest", escape(name)), all.into()),
            ])
        }
        ["vhost-limit", vhost, limit, value] => put(
            format!("vhost-limits/{}/{limit}", escape(vhost)),
            format!("{{\"value\": {value}}}"),
        ),
        ["user-limit", user, limit, value] => {
            put(format!("user-limits/{}/{limit}", escape(user)), format!("{{\"value\": {value}}}"))
        }
        [
            kind @ ("policy" | "operator-policy"),
            vhost,
            name,
            pattern,
            apply,
            priority,
            definition,
        ] => {
            let plural = if *kind == "policy" { "policies" } else { "operator-policies" };
            put(
                format!("{plural}/{}/{}", escape(vhost), escape(name)),
                format!(
                    "{{\"pattern\": \"{}\", \"apply-to\": \"{apply}\", \"priority\": {priority}, \
                     \"definition\": {definition}}}",
                    json(pattern)
                ),
            )
        }
        ["trace", state, vhost] => {
            put(format!("vhosts/{}", escape(vhost)), format!("{{\"tracing\": {}}}", *state == "on"))
        }
        ["delete", "vhost", name] => delete(format!("vhosts/{}", escape(name))),
        ["delete", "user", name] => delete(format!("users/{}", escape(name))),
        ["delete", "policy", vhost, name] => {
            delete(format!("policies/{}/{}", escape(vhost), escape(name)))
        }
        ["delete", "operator-policy", vhost, name] => {
            delete(format!("operator-policies/{}/{}", escape(vhost), escape(name)))
        }
        ["delete", "permission", user, vhost] => {
            delete(format!("permissions/{}/{}", escape(vhost), escape(user)))
        }
        _ => None,
    }
}

/// What a step is for `warren ctl`.
fn commands<'a>(words: &[&'a str]) -> Option<Vec<Vec<&'a str>>> {
    Some(match words {
        ["password", name, password] => vec![vec!["change_password", name, password]],
        ["user", name, password, tags @ ..] => {
            let tags = [&["set_user_tags", *name], tags].concat();
            vec![vec!["add_user", name, password], tags]
        }
        ["permission", user, vhost, configure, write, read] => {
            vec![vec!["set_permissions", "-p", vhost, user, configure, write, read]]
        }
        ["topic-permission", user, vhost, exchange, write, read] => {
            vec![vec!["set_topic_permissions", "-p", vhost, user, exchange, write, read]]
        }
        ["vhost", name] => vec![
            vec!["add_vhost", name],
            vec!["set_permissions", "-p", name, "guest", ".*", ".*", ".*"],
        ],
        ["vhost-limit", vhost, limit, value] => {
            let limits = format!("{{\"{limit}\": {value}}}").leak();
            vec![vec!["set_vhost_limits", "-p", vhost, limits]]
        }
        ["user-limit", user, limit, value] => {
            vec![vec!["set_user_limits", user, format!("{{\"{limit}\": {value}}}").leak()]]
        }
        [
            kind @ ("policy" | "operator-policy"),
            vhost,
            name,
            pattern,
            apply,
            priority,
            definition,
        ] => {
            let set = if *kind == "policy" { "set_policy" } else { "set_operator_policy" };
            let options = ["-p", vhost, "--apply-to", apply, "--priority", priority, "--"];
            vec![[&[set], &options[..], &[name, pattern, definition]].concat()]
        }
        ["trace", "on", vhost] => vec![vec!["trace_on", "-p", vhost]],
        ["trace", "off", vhost] => vec![vec!["trace_off", "-p", vhost]],
        ["delete", "vhost", name] => vec![vec!["delete_vhost", name]],
        ["delete", "user", name] => vec![vec!["delete_user", name]],
        ["delete", "policy", vhost, name] => vec![vec!["clear_policy", "-p", vhost, name]],
        ["delete", "operator-policy", vhost, name] => {
            vec![vec!["clear_operator_policy", "-p", vhost, name]]
        }
        ["delete", "permission", user, vhost] => {
            vec![vec!["clear_permissions", "-p", vhost, user]]
        }
        _ => return None,
    })
}

fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F").replace(' ', "%20")
}

fn json(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
