//! `warren serve`: from the settings to a running server, and to its orderly end.

mod control;
mod interceptors;
mod limits;
mod listener;
mod servers;
mod settings;
mod tls;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;
use warren_broker::{Broker, Config, Definitions, LoginOptions};
use warren_hub::signal::{Signal, on_signals};
use warren_hub::sync::Event;
use warren_reactor::ListeningPort;

use control::Control;
use listener::Listener;
use servers::Servers;
pub(crate) use settings::Options;
use settings::Settings;

/// The control socket in the data directory.
pub(crate) const CONTROL: &str = "control.sock";
/// How long clients may take to close after a signal.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the server until it is told to end.
pub(crate) fn run(options: Options) -> Result<()> {
    let settings = Settings::load(options)?;
    start_logging(&settings.log)?;
    raise_file_limit();
    warren_hub::try_run(move || serve(&settings)).context("cannot run the event loop")?
}

fn serve(settings: &Settings) -> Result<()> {
    // Before anything else: a taken port must leave the data directory alone.
    let bound = settings.listen.iter().map(Listener::bind).collect::<Result<Vec<_>>>()?;
    let tls = match settings.listen.iter().any(Listener::is_tls) {
        true => Some(settings.tls.build()?),
        false => None,
    };
    let logins = settings
        .listen
        .iter()
        .map(|listener| login_options(listener, settings))
        .collect::<Result<Vec<_>>>()?;
    let broker = Broker::open(Config {
        data_dir: settings.data_dir.clone(),
        durability: settings.durability,
        default_user: settings.default_user.clone(),
        default_pass: settings.default_pass.clone(),
        password_hashing: settings.password_hashing,
        memory_limit: settings.memory_limit,
        disk_free_limit: settings.disk_free_limit,
        limits: settings.limits.clone(),
        interceptors: settings.interceptors,
    })
    .map_err(|error| anyhow!("{error}"))?;
    if let Some(path) = &settings.definitions {
        import(&broker, path)
            .with_context(|| format!("cannot import definitions from {}", path.display()))?;
    }
    let _control = control(settings, &broker)?;
    let stop = Rc::new(Event::new());
    let _signals = on_signals(&[Signal::TERM, Signal::INT], {
        let stop = stop.clone();
        move |signal| {
            if stop.is_set() {
                // Asked twice: at once.
                std::process::exit(1);
            }
            tracing::info!(?signal, "shutting down");
            stop.set();
        }
    })
    .context("cannot watch for signals")?;
    let factories = logins.into_iter().map(|login| broker.factory_with(login)).collect();
    let mut servers = Servers::start(settings, tls, factories)?;
    let _renewals =
        on_signals(&[Signal::HUP], servers.renewal()).context("cannot watch for signals")?;
    let mut ports: Vec<ListeningPort> = Vec::with_capacity(bound.len());
    for (number, (listener, port)) in settings.listen.iter().zip(bound).enumerate() {
        let port = servers.listen(number, port);
        ports.push(port.with_context(|| format!("cannot listen on {listener}"))?);
    }
    // Most of what an idle server would take is code that only the start has needed.
    warren_hub::release_code();
    announce(&settings.listen, &ports, settings.data_dir.as_deref())?;
    stop.wait();
    drop(ports);
    broker.shutdown(DRAIN);
    servers.end();
    Ok(())
}

/// How one logs in at a listener.
fn login_options(listener: &Listener, settings: &Settings) -> Result<LoginOptions> {
    let certificates = settings.tls.has_certificates();
    let mechanisms = listener.mechanisms(&settings.auth_mechanisms, certificates)?;
    Ok(LoginOptions { mechanisms, cert_login: settings.tls.cert_login()? })
}

/// The control socket that was asked for, or the data directory's, which not every folder can have: the path of a
/// socket is short.
fn control(settings: &Settings, broker: &Broker) -> Result<Option<Control>> {
    if let Some(path) = &settings.control {
        return Control::listen(path, broker.administrator()).map(Some);
    }
    let Some(folder) = &settings.data_dir else { return Ok(None) };
    match Control::listen(&folder.join(CONTROL), broker.administrator()) {
        Ok(control) => Ok(Some(control)),
        Err(error) => {
            tracing::warn!("{error:#}; name another place with --control");
            Ok(None)
        }
    }
}

/// Before anyone can connect: they find what is defined.
fn import(broker: &Broker, path: &Path) -> Result<()> {
    let definitions = Definitions::parse(&std::fs::read(path)?).map_err(|error| anyhow!(error))?;
    broker.import(&definitions)?;
    tracing::info!(path = %path.display(), "definitions were imported");
    Ok(())
}

/// Tells on standard output where clients can connect.
fn announce(
    listeners: &[Listener],
    ports: &[ListeningPort],
    data_dir: Option<&Path>,
) -> Result<()> {
    match data_dir {
        Some(folder) => {
            tracing::info!(folder = %folder.display(), "durable messages are kept on disk")
        }
        None => tracing::warn!("there is no data directory: nothing outlives this process"),
    }
    let mut out = std::io::stdout().lock();
    for (listener, port) in listeners.iter().zip(ports) {
        writeln!(out, "listening {}", listener.with_addr(port.addr()))?;
    }
    writeln!(out, "ready")?;
    out.flush()?;
    Ok(())
}

fn start_logging(level: &str) -> Result<()> {
    let filter = EnvFilter::try_new(level).with_context(|| {
        format!("'{level}' is no log level: use error, warn, info, debug, trace or off")
    })?;
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
    Ok(())
}

/// A connection takes a descriptor: takes as many as we may have without asking anyone.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}

/// Where data goes unless told otherwise: the service manager's folder, or the user's for such things.
pub(crate) fn default_data_dir() -> PathBuf {
    let folder =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("STATE_DIRECTORY")
        .or_else(|| Some(folder("XDG_STATE_HOME")?.join("warren")))
        .or_else(|| Some(folder("HOME")?.join(".local/state/warren")))
        .unwrap_or_else(|| "warren-data".into())
}
