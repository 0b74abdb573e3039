//! A service made of services.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};

use super::{Service, ServiceError, ServiceHandle, all};
use crate::deferred::{AnyError, Deferred};

/// Starts its children in the order in which they were added, and stops them in the reverse order, waiting for all. A
/// child that is added while it runs starts at once. Clones are the same service.
///
/// ```
/// use std::{cell::RefCell, rc::Rc};
/// use warren_reactor::service::{MultiService, Service};
/// use warren_reactor::{AnyError, Deferred};
///
/// #[derive(Clone)]
/// struct Part(&'static str, Rc<RefCell<String>>);
///
/// impl Service for Part {
///     fn start_service(&self) -> Result<(), AnyError> {
///         Ok(self.1.borrow_mut().push_str(self.0))
///     }
///     fn stop_service(&self) -> Deferred<()> {
///         self.1.borrow_mut().push_str(self.0);
///         Deferred::succeed(())
///     }
/// }
///
/// let log = Rc::<RefCell<String>>::default();
/// let all = MultiService::new();
/// all.add_service(Part("a", log.clone()))?;
/// all.add_service(Part("b", log.clone()))?;
/// all.start_service()?;
/// all.add_service(Part("c", log.clone()))?;
/// all.stop_service().wait()?;
/// assert_eq!(*log.borrow(), "abccba");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct MultiService(Rc<Inner>);

/// A [`MultiService`] that is not kept, as its children hold it.
#[derive(Clone, Default)]
pub struct WeakMultiService(Weak<Inner>);

#[derive(Default)]
struct Inner {
    children: RefCell<Vec<ServiceHandle>>,
    privileged: Cell<bool>,
    running: Cell<bool>,
}

impl WeakMultiService {
    /// The service, if anybody keeps it.
    pub fn upgrade(&self) -> Option<MultiService> {
        self.0.upgrade().map(MultiService)
    }
}

impl MultiService {
    /// One without children, that does not run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `service`, and starts it if this one runs.
    ///
    /// # Errors
    /// [`ServiceError::Start`]: it does not start, and is no child then.
    pub fn add_service(
        &self,
        service: impl Service + 'static,
    ) -> Result<ServiceHandle, ServiceError> {
        let handle = ServiceHandle::new(service);
        self.add(&handle).map(|()| handle)
    }

    /// As [`add_service`](Self::add_service), under a name.
    ///
    /// # Errors
    /// [`ServiceError::NameTaken`], [`ServiceError::Start`].
    pub fn add_named(
        &self,
        name: impl Into<String>,
        service: impl Service + 'static,
    ) -> Result<ServiceHandle, ServiceError> {
        let handle = ServiceHandle::named(name, service);
        self.add(&handle).map(|()| handle)
    }

    /// As [`add_service`](Self::add_service), for a service that has a handle already.
    ///
    /// # Errors
    /// [`ServiceError::HasParent`], [`ServiceError::NameTaken`], [`ServiceError::Start`].
    pub fn add(&self, service: &ServiceHandle) -> Result<(), ServiceError> {
        if service.parent().is_some() {
            return Err(ServiceError::HasParent { service: service.to_string() });
        }
        if let Some(name) = service.name()
            && self.get_service_named(&name).is_some()
        {
            return Err(ServiceError::NameTaken { name });
        }
        *service.0.parent.borrow_mut() = WeakMultiService(Rc::downgrade(&self.0));
        self.0.children.borrow_mut().push(service.clone());
        let mut started = Ok(());
        if self.0.privileged.get() {
            started = service.privileged_start_service();
        }
        if self.0.running.get() {
            started = started.and_then(|()| service.start_service());
        }
        if started.is_err() {
            self.forget(service);
        }
        started
    }

    /// Removes a child, and stops it if this one runs. Fires when it has stopped.
    pub fn remove_service(&self, service: &ServiceHandle) -> Deferred<(), ServiceError> {
        if !self.forget(service) {
            return Deferred::fail(ServiceError::NotAChild { service: service.to_string() });
        }
        service.stop_service()
    }

    /// False when it was no child.
    fn forget(&self, service: &ServiceHandle) -> bool {
        let mut children = self.0.children.borrow_mut();
        let place = children.iter().position(|child| Rc::ptr_eq(&child.0, &service.0));
        let Some(place) = place else { return false };
        let removed = children.remove(place);
        drop(children);
        *removed.0.parent.borrow_mut() = WeakMultiService::default();
        true
    }

    /// The child of this name.
    pub fn get_service_named(&self, name: &str) -> Option<ServiceHandle> {
        let children = self.0.children.borrow();
        children.iter().find(|child| child.0.name.borrow().as_deref() == Some(name)).cloned()
    }

    /// The children, in the order in which they were added.
    pub fn services(&self) -> Vec<ServiceHandle> {
        self.0.children.borrow().clone()
    }

    /// Whether it was started, and not stopped since.
    pub fn is_running(&self) -> bool {
        self.0.running.get()
    }

    /// Does what needs privileges, for all children.
    ///
    /// # Errors
    /// [`ServiceError::Start`] of the first that refuses.
    pub fn privileged_start_service(&self) -> Result<(), ServiceError> {
        self.0.privileged.set(true);
        self.services().iter().try_for_each(ServiceHandle::privileged_start_service)
    }

    /// Starts the children, in the order in which they were added.
    ///
    /// # Errors
    /// [`ServiceError::Start`] of the first that refuses. Those before it run: [`stop_service`](Self::stop_service) stops
    /// them.
    pub fn start_service(&self) -> Result<(), ServiceError> {
        self.0.privileged.set(true);
        self.0.running.set(true);
        // One may be removed by another that starts.
        let own = |child: &ServiceHandle| {
            child.parent().is_some_and(|parent| Rc::ptr_eq(&parent.0, &self.0))
        };
        self.services().iter().filter(|child| own(child)).try_for_each(ServiceHandle::start_service)
    }

    /// Stops the children, the last one first; none waits for another. Fires when all have stopped, and fails then if one
    /// has failed.
    pub fn stop_service(&self) -> Deferred<(), ServiceError> {
        self.0.privileged.set(false);
        self.0.running.set(false);
        all(self.services().iter().rev().map(ServiceHandle::stop_service).collect())
    }
}

impl Service for MultiService {
    fn privileged_start_service(&self) -> Result<(), AnyError> {
        Ok(self.privileged_start_service()?)
    }

    fn start_service(&self) -> Result<(), AnyError> {
        let started = self.start_service();
        if started.is_err() {
            // As a whole it has not started. What had is stopped, and nobody can be told how that goes.
            let stopped = self.stop_service().add_errback(|failure| {
                tracing::error!(%failure, "a service that was started in vain");
                Ok(())
            });
            drop(stopped);
        }
        Ok(started?)
    }

    fn stop_service(&self) -> Deferred<()> {
        self.stop_service().map_err(AnyError::from)
    }
}

impl fmt::Debug for MultiService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiService")
            .field("services", &self.0.children.borrow())
            .field("running", &self.is_running())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakMultiService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WeakMultiService").field(&self.upgrade()).finish()
    }
}
