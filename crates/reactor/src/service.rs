//! Parts of a program that start and stop together: [`Service`], [`MultiService`], [`Application`].
//!
//! ```
//! use std::time::Duration;
//! use warren_reactor::service::{Application, TimerService};
//! use warren_reactor::stop;
//!
//! let application = Application::new("clock");
//! let tick = TimerService::new(Duration::from_millis(1), || {
//!     let _ = stop();
//! });
//! application.services().add_named("tick", tick)?;
//! let stopped = application.run()?;
//! assert_eq!(stopped.failed, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A service is what implements the trait; a [`ServiceHandle`] is its place in the tree, with its name, its parent, and
//! whether it runs. So a service needs no fields for that, and cannot be started twice.

mod application;
mod client;
mod multi;
mod ready;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

pub use application::{Application, ApplicationError};
pub use client::{Backoff, ClientService};
pub use multi::{MultiService, WeakMultiService};
pub use ready::{StreamServerEndpointService, TimerService};

use crate::completion::complete;
use crate::deferred::{AnyError, Deferred, DeferredList, Failure};

/// A part of a program that is started and stopped. All calls come from the loop's thread.
pub trait Service {
    /// What has to be done before the program gives up privileges, such as to bind a port below 1024. Called before
    /// [`start_service`](Self::start_service), for all services of a tree.
    ///
    /// # Errors
    /// What keeps the service from starting.
    fn privileged_start_service(&self) -> Result<(), AnyError> {
        Ok(())
    }

    /// Starts it. It may be started again after it was stopped.
    ///
    /// # Errors
    /// What keeps the service from starting. Nothing is left running then.
    fn start_service(&self) -> Result<(), AnyError>;

    /// Stops it. Fires when nothing of it runs any more. Also called when it has only done what needs privileges, because
    /// the program does not start after all.
    fn stop_service(&self) -> Deferred<()> {
        Deferred::succeed(())
    }
}

/// A service that others keep too.
impl<S: Service + ?Sized> Service for Rc<S> {
    fn privileged_start_service(&self) -> Result<(), AnyError> {
        (**self).privileged_start_service()
    }

    fn start_service(&self) -> Result<(), AnyError> {
        (**self).start_service()
    }

    fn stop_service(&self) -> Deferred<()> {
        (**self).stop_service()
    }
}

/// Why a tree of services is not changed, or does not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Names are unique below one parent.
    #[error("there is a service named {name} already: give the other one another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A service has one parent, and keeps its name while it has it.
    #[error("{service} has a parent: disown it first")]
    HasParent {
        /// Which service.
        service: String,
    },
    /// The service to be removed is another's child, or nobody's.
    #[error("{service} is no child of this service")]
    NotAChild {
        /// Which service.
        service: String,
    },
    /// A service has refused to start.
    #[error("{service} does not start: {error}")]
    Start {
        /// Which service.
        service: String,
        /// What it said.
        error: AnyError,
    },
    /// A service has failed to stop. It counts as stopped.
    #[error("{service} did not stop as it should: {error}")]
    Stop {
        /// Which service.
        service: String,
        /// What it said.
        error: AnyError,
    },
}

/// A service in its place: its name, its parent, whether it runs. Clones are the same service.
#[derive(Clone)]
pub struct ServiceHandle(Rc<Node>);

struct Node {
    name: RefCell<Option<String>>,
    parent: RefCell<WeakMultiService>,
    privileged: Cell<bool>,
    running: Cell<bool>,
    service: Box<dyn Service>,
}

impl ServiceHandle {
    /// A service without a name and without a parent.
    pub fn new(service: impl Service + 'static) -> Self {
        Self(Rc::new(Node {
            name: RefCell::default(),
            parent: RefCell::default(),
            privileged: Cell::default(),
            running: Cell::default(),
            service: Box::new(service),
        }))
    }

    /// As [`new`](Self::new), with a name.
    pub fn named(name: impl Into<String>, service: impl Service + 'static) -> Self {
        let handle = Self::new(service);
        *handle.0.name.borrow_mut() = Some(name.into());
        handle
    }

    /// Its name.
    pub fn name(&self) -> Option<String> {
        self.0.name.borrow().clone()
    }

    /// Gives it a name.
    ///
    /// # Errors
    /// [`ServiceError::HasParent`].
    pub fn set_name(&self, name: impl Into<String>) -> Result<(), ServiceError> {
        if self.parent().is_some() {
            return Err(ServiceError::HasParent { service: self.to_string() });
        }
        *self.0.name.borrow_mut() = Some(name.into());
        Ok(())
    }

    /// Whom it is started and stopped with.
    pub fn parent(&self) -> Option<MultiService> {
        self.0.parent.borrow().upgrade()
    }

    /// As [`MultiService::add`], from the child's side.
    ///
    /// # Errors
    /// As [`MultiService::add`].
    pub fn set_service_parent(&self, parent: &MultiService) -> Result<(), ServiceError> {
        parent.add(self)
    }

    /// Leaves its parent, and stops if that runs. Fires when it has stopped. Without a parent there is nothing to do.
    pub fn disown_service_parent(&self) -> Deferred<(), ServiceError> {
        match self.parent() {
            Some(parent) => parent.remove_service(self),
            None => Deferred::succeed(()),
        }
    }

    /// Whether it was started, and not stopped since.
    pub fn is_running(&self) -> bool {
        self.0.running.get()
    }

    /// Does what needs privileges, once before each start.
    ///
    /// # Errors
    /// [`ServiceError::Start`].
    pub fn privileged_start_service(&self) -> Result<(), ServiceError> {
        if self.0.privileged.replace(true) {
            return Ok(());
        }
        let started = self.call(|service| service.privileged_start_service());
        self.0.privileged.set(started.is_ok());
        started
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// [`ServiceError::Start`], also when it panics.
    pub fn start_service(&self) -> Result<(), ServiceError> {
        if self.0.running.replace(true) {
            return Ok(());
        }
        let started = self.privileged_start_service();
        let started = started.and_then(|()| self.call(|service| service.start_service()));
        self.0.running.set(started.is_ok());
        started
    }

    /// Stops it, if it runs. Fires when it has stopped.
    pub fn stop_service(&self) -> Deferred<(), ServiceError> {
        let began = self.0.running.replace(false) | self.0.privileged.replace(false);
        if !began {
            return Deferred::succeed(());
        }
        let service = self.to_string();
        let stopped = complete(|| self.0.service.stop_service());
        let stopped = stopped.add_errback(|failure| {
            Err(match failure {
                Failure::Panicked(panic) => {
                    AnyError::new(format!("it panicked: {}", panic.message().unwrap_or("?"))).into()
                }
                failure => failure,
            })
        });
        stopped.map_err(|error| ServiceError::Stop { service, error })
    }

    fn call(
        &self,
        start: impl FnOnce(&dyn Service) -> Result<(), AnyError>,
    ) -> Result<(), ServiceError> {
        let called = warren_hub::contain("a service that starts", || start(&*self.0.service));
        let result =
            called.unwrap_or_else(|text| Err(AnyError::new(format!("it panicked: {text}"))));
        result.map_err(|error| ServiceError::Start { service: self.to_string(), error })
    }
}

/// How messages name it.
impl fmt::Display for ServiceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.name.borrow() {
            Some(name) => write!(f, "the service {name}"),
            None => f.write_str("a service without a name"),
        }
    }
}

impl fmt::Debug for ServiceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceHandle")
            .field("name", &self.0.name.borrow())
            .field("running", &self.is_running())
            .finish_non_exhaustive()
    }
}

/// Fires when all of `deferreds` have; fails with the first failure then. The others are logged.
fn all(deferreds: Vec<Deferred<(), ServiceError>>) -> Deferred<(), ServiceError> {
    DeferredList::new(deferreds).all().add_callback(|results| {
        let mut failures = results.into_iter().filter_map(Result::err);
        let first = failures.next();
        failures
            .for_each(|failure| tracing::error!(%failure, "another service has failed to stop"));
        first.map_or(Ok(()), Err)
    })
}
