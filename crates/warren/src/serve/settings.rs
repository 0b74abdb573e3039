//! Settings: from the command line, else the environment, else the file, else the defaults.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Deserialize;
use warren_broker::{
    Config, Durability, Hashing, Interceptors, Limits, LoginOptions, Mechanism, MemoryLimit,
    parse_size,
};

use super::default_data_dir;
use super::interceptors::InterceptorSettings;
use super::limits::LimitSettings;
use super::listener::{Listener, Place};
use super::tls::TlsSettings;

/// More than this keep nobody busy while one hub has all queues.
const HUBS_MAX: usize = 64;

/// What the command line and the environment say.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Listen here: amqp://HOST:PORT, amqps://HOST:PORT or unix:/PATH; may be repeated; port 0 takes a free one. Behind a
    /// question mark, with & between them: proxy_protocol=true, or =10.0.0.0/8+::1 for these alone;
    /// auth_mechanisms=EXTERNAL+PLAIN; of a Unix socket mode=660 [default: amqp://127.0.0.1:5672]
    #[arg(long, value_name = "URL", env = "WARREN_LISTEN", value_delimiter = ',')]
    listen: Vec<Listener>,
    /// Keep durable queues and persistent messages in this folder; `none` keeps nothing
    /// [default: the user's state folder]
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Listen for `warren users`, `warren ctl`, ... here
    /// [default: control.sock in the data directory, if there is one]
    #[arg(long, value_name = "PATH", env = "WARREN_CONTROL")]
    control: Option<PathBuf>,
    /// Import definitions from this file, as RabbitMQ exports them, at every start
    #[arg(long, value_name = "FILE", env = "WARREN_DEFINITIONS")]
    definitions: Option<PathBuf>,
    /// The administrator that a new server has, made at the first start only [default: guest]
    #[arg(long, value_name = "NAME", env = "WARREN_DEFAULT_USER")]
    default_user: Option<String>,
    /// Its password [default: guest]
    #[arg(long, value_name = "PASSWORD", env = "WARREN_DEFAULT_PASS", hide_env_values = true)]
    default_pass: Option<String>,
    /// How new passwords are kept: argon2id, or rabbitmq or sha512, which RabbitMQ can take over
    /// [default: argon2id]
    #[arg(long, value_name = "KIND", env = "WARREN_PASSWORD_HASHING")]
    password_hashing: Option<Hashing>,
    /// Keep to this much memory: a share of the machine's or the control group's, like 0.6, or a size, like 2GiB. From
    /// three quarters of it on messages go to disk; above it publishers wait [default: 0.6]
    #[arg(long, value_name = "SIZE", env = "WARREN_MEMORY_LIMIT")]
    memory_limit: Option<MemoryLimit>,
    /// Let publishers wait while the data directory's disk has less room than this [default: 50MB]
    #[arg(long, value_name = "SIZE", env = "WARREN_DISK_FREE_LIMIT", value_parser = parse_size)]
    disk_free_limit: Option<u64>,
    /// What clients may log in with: PLAIN, AMQPLAIN, EXTERNAL; the last where they show certificates
    /// [default: PLAIN,AMQPLAIN]
    #[arg(long, value_name = "NAMES", env = "WARREN_AUTH_MECHANISMS", value_delimiter = ',')]
    auth_mechanisms: Vec<Mechanism>,
    /// Confirm messages when the device has them (fsync), or when the system has (os): what that has not written yet is
    /// lost if the machine fails [default: fsync]
    #[arg(long, value_name = "fsync|os", env = "WARREN_DURABILITY")]
    durability: Option<Durability>,
    /// Threads with an event loop each: the first has the queues; where there are more, they have the connections, with
    /// TLS and all that the system does for them; 0: one for each processor [default: 1]
    #[arg(long, value_name = "COUNT", env = "WARREN_HUBS")]
    hubs: Option<usize>,
    #[command(flatten)]
    limits: LimitSettings,
    #[command(flatten)]
    message_interceptors: InterceptorSettings,
    #[command(flatten)]
    tls: TlsSettings,
    /// Log to standard error: error, warn, info, debug, trace or off [default: info]
    #[arg(long, value_name = "LEVEL", env = "WARREN_LOG")]
    log: Option<String>,
    /// Read settings from this TOML file: the same keys, `listen` as a list
    #[arg(long, value_name = "FILE", env = "WARREN_CONFIG")]
    config: Option<PathBuf>,
}

/// What the file says.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    listen: Vec<String>,
    data_dir: Option<PathBuf>,
    log: Option<String>,
    control: Option<PathBuf>,
    definitions: Option<PathBuf>,
    default_user: Option<String>,
    default_pass: Option<String>,
    password_hashing: Option<String>,
    memory_limit: Option<String>,
    disk_free_limit: Option<String>,
    auth_mechanisms: Vec<String>,
    durability: Option<String>,
    hubs: Option<usize>,
    /// Tables of their own.
    limits: LimitSettings,
    message_interceptors: InterceptorSettings,
    tls: TlsSettings,
}

/// What holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<Listener>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) log: String,
    pub(crate) control: Option<PathBuf>,
    pub(crate) definitions: Option<PathBuf>,
    pub(crate) default_user: String,
    pub(crate) default_pass: String,
    pub(crate) password_hashing: Hashing,
    pub(crate) memory_limit: MemoryLimit,
    pub(crate) disk_free_limit: u64,
    pub(crate) auth_mechanisms: Vec<Mechanism>,
    pub(crate) durability: Durability,
    /// At least one.
    pub(crate) hubs: usize,
    pub(crate) limits: Limits,
    pub(crate) interceptors: Interceptors,
    pub(crate) tls: TlsSettings,
}

impl Settings {
    pub(crate) fn load(options: Options) -> Result<Self> {
        let file = match &options.config {
            Some(path) => read(path).with_context(|| format!("cannot use {}", path.display()))?,
            None => File::default(),
        };
        let mut listen = options.listen;
        if listen.is_empty() {
            listen = file
                .listen
                .iter()
                .map(|url| url.parse().map_err(|error: String| anyhow!("listen: {error}")))
                .collect::<Result<_>>()?;
        }
        if listen.is_empty() {
            listen = vec![Place::Amqp("127.0.0.1".into(), 5672).into()];
        }
        let password_hashing = match (options.password_hashing, &file.password_hashing) {
            (Some(hashing), _) => hashing,
            (None, Some(text)) => {
                text.parse().map_err(|error| anyhow!("password-hashing: {error}"))?
            }
            (None, None) => Hashing::default(),
        };
        let memory_limit = match (options.memory_limit, &file.memory_limit) {
            (Some(limit), _) => limit,
            (None, Some(text)) => text.parse().map_err(|error| anyhow!("memory-limit: {error}"))?,
            (None, None) => Config::default().memory_limit,
        };
        let disk_free_limit = match (options.disk_free_limit, &file.disk_free_limit) {
            (Some(limit), _) => limit,
            (None, Some(text)) => {
                parse_size(text).map_err(|error| anyhow!("disk-free-limit: {error}"))?
            }
            (None, None) => Config::default().disk_free_limit,
        };
        let mut auth_mechanisms = options.auth_mechanisms;
        if auth_mechanisms.is_empty() {
            auth_mechanisms = file
                .auth_mechanisms
                .iter()
                .map(|name| name.parse().map_err(|error| anyhow!("auth-mechanisms: {error}")))
                .collect::<Result<_>>()?;
        }
        if auth_mechanisms.is_empty() {
            auth_mechanisms = LoginOptions::default().mechanisms;
        }
        let durability = match (options.durability, &file.durability) {
            (Some(durability), _) => durability,
            (None, Some(text)) => text.parse().map_err(|error| anyhow!("durability: {error}"))?,
            (None, None) => Durability::default(),
        };
        let hubs = match options.hubs.or(file.hubs).unwrap_or(1) {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            hubs if hubs <= HUBS_MAX => hubs,
            hubs => bail!("hubs: {hubs} are too many: at most {HUBS_MAX} help"),
        };
        let guest = || String::from("guest");
        let data_dir = options.data_dir.or(file.data_dir).unwrap_or_else(default_data_dir);
        Ok(Self {
            listen,
            data_dir: (data_dir != Path::new("none")).then_some(data_dir),
            control: options.control.or(file.control),
            definitions: options.definitions.or(file.definitions),
            default_user: options.default_user.or(file.default_user).unwrap_or_else(guest),
            default_pass: options.default_pass.or(file.default_pass).unwrap_or_else(guest),
            password_hashing,
            memory_limit,
            disk_free_limit,
            auth_mechanisms,
            durability,
            hubs,
            limits: options.limits.or(file.limits).map_err(|error| anyhow!("limits: {error}"))?,
            interceptors: options.message_interceptors.or(file.message_interceptors),
            tls: options.tls.or(file.tls),
            log: options.log.or(file.log).unwrap_or_else(|| "info".into()),
        })
    }
}

fn read(path: &Path) -> Result<File> {
    Ok(toml::from_str(&std::fs::read_to_string(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::{Listener, Options, Place, Settings};

    fn settings(file: &str, options: Options) -> anyhow::Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warren.toml");
        std::fs::write(&path, file).unwrap();
        Settings::load(Options { config: Some(path), ..options })
    }

    #[test]
    fn the_file_fills_in_what_the_command_line_leaves_open() {
        let file =
            "listen = ['amqp://[::1]:1', 'unix:/tmp/w']\ndata-dir = '/tmp/from-file'\nlog = 'warn'";
        let options = Options { data_dir: Some("/tmp/from-line".into()), ..Options::default() };
        let settings = settings(file, options).unwrap();
        let listen: Vec<Listener> =
            vec![Place::Amqp("::1".into(), 1).into(), Place::Unix("/tmp/w".into()).into()];
        let data_dir = Some("/tmp/from-line".into());
        assert_eq!((settings.listen, settings.data_dir), (listen, data_dir));
        assert_eq!((settings.log.as_str(), settings.default_user.as_str()), ("warn", "guest"));
    }

    #[test]
    fn without_any_there_are_defaults() {
        let settings = settings("", Options::default()).unwrap();
        assert_eq!(settings.listen, [Listener::from(Place::Amqp("127.0.0.1".into(), 5672))]);
        assert_eq!(settings.log, "info");
        assert!(settings.data_dir.is_some());
    }

    #[test]
    fn hubs_are_counted_or_one_for_each_processor() {
        let hubs = |file: &str| settings(file, Options::default()).map(|settings| settings.hubs);
        assert_eq!(hubs("").unwrap(), 1);
        assert_eq!(hubs("hubs = 3").unwrap(), 3);
        assert!(0 < hubs("hubs = 0").unwrap());
        assert!(hubs("hubs = 1000").unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn none_is_no_folder() {
        assert_eq!(settings("data-dir = 'none'", Options::default()).unwrap().data_dir, None);
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let error = settings("listn = []", Options::default()).unwrap_err();
        assert!(format!("{error:#}").contains("listn"), "{error:#}");
    }
}
