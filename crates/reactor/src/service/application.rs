//! A program made of services.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::{MultiService, ServiceError};
use crate::deferred::AnyError;
use crate::system::{
    RunError, Runner, Stopped, SystemEvent, TriggerPhase, add_system_event_trigger,
};

/// Runs a tree of services until SIGINT or SIGTERM comes, or [`stop`](crate::stop) is called (Twisted's `Application`, run
/// by `twistd -n`). It stays in the foreground, where service managers want it.
pub struct Application {
    name: String,
    services: MultiService,
    runner: Runner,
    shed_privileges: Option<Box<dyn FnOnce() -> io::Result<()>>>,
}

/// Why an [`Application`] does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplicationError {
    /// The reactor cannot run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A service has refused to start. Those that had started are stopped again.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The function given to [`Application::shed_privileges`] has failed.
    #[error("the privileges cannot be given up: {0}")]
    Privileges(io::Error),
}

impl Application {
    /// One without services. The name is for messages.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            services: MultiService::new(),
            runner: Runner::new(),
            shed_privileges: None,
        }
    }

    /// The root of the tree.
    pub fn services(&self) -> &MultiService {
        &self.services
    }

    /// How it is run: on which hub, until which signals, with which limit for the shutdown.
    pub fn runner(mut self, runner: Runner) -> Self {
        self.runner = runner;
        self
    }

    /// Calls `shed` once all services have done what needs privileges, and before any is started: to become another user.
    pub fn shed_privileges(mut self, shed: impl FnOnce() -> io::Result<()> + 'static) -> Self {
        self.shed_privileges = Some(Box::new(shed));
        self
    }

    /// Starts all services, runs the reactor, and stops the services before its shutdown, which is waited for.
    ///
    /// # Suspends
    /// As [`run`](crate::run).
    ///
    /// # Errors
    /// [`ApplicationError`]. Failures of services that stop are counted in what this gives, and logged.
    ///
    /// # Panics
    /// As [`run`](crate::run).
    pub fn run(self) -> Result<Stopped, ApplicationError> {
        let Self { name, services, runner, shed_privileges } = self;
        runner.run(move || {
            if let Err(error) = start(&services, shed_privileges) {
                stop_again(&services);
                return Err(error);
            }
            tracing::info!(application = name, "started");
            add_system_event_trigger(TriggerPhase::Before, SystemEvent::Shutdown, move || {
                services.stop_service().map_err(AnyError::from)
            });
            Ok(())
        })
    }

    /// As [`run`](Self::run), for the end of `main`: an error is written to the standard error output. The exit code is 0
    /// when the services were started, and stopped without a failure.
    ///
    /// # Panics
    /// As [`run`](crate::run).
    pub fn run_to_exit(self) -> ExitCode {
        let name = self.name.clone();
        match self.run() {
            Ok(stopped) => stopped.exit_code(),
            Err(error) => {
                eprintln!("{name}: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

fn start(
    services: &MultiService,
    shed_privileges: Option<Box<dyn FnOnce() -> io::Result<()>>>,
) -> Result<(), ApplicationError> {
    services.privileged_start_service()?;
    if let Some(shed) = shed_privileges {
        shed().map_err(ApplicationError::Privileges)?;
    }
    Ok(services.start_service()?)
}

/// On the fiber that runs `main`: whatever has started has stopped when it goes on.
fn stop_again(services: &MultiService) {
    if let Err(failure) = services.stop_service().wait() {
        tracing::error!(%failure, "a service that was started in vain");
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("name", &self.name)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}
