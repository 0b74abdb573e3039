//! Hooks around every switch: for what must be saved and restored per fiber, and for profilers.

use std::fmt;
use std::rc::Rc;

use crate::hub;
use crate::join::FiberId;

/// Told of each switch of a hub between its loop and a fiber. greenlet's `settrace`, for fibers.
///
/// The place to save and restore what another library keeps in a thread-local for a scope, such as a current tracing
/// span: without it, fibers that wait in such a scope see one another's.
pub trait SwitchHook {
    /// `fiber` is about to go on, or to begin.
    fn switched_in(&self, fiber: FiberId);
    /// `fiber` waits, or has ended.
    fn switched_out(&self, fiber: FiberId);
}

/// Ends the hook's calls when dropped.
#[must_use = "dropping the guard removes the hook"]
pub struct SwitchHookGuard(Rc<dyn SwitchHook>);

/// Calls `hook` around everything that a fiber of this hub does from now on, on the loop; it must not wait. Costs
/// nothing while there is no hook.
///
/// # Panics
/// When no hub runs on this thread.
pub fn on_switch(hook: Rc<dyn SwitchHook>) -> SwitchHookGuard {
    hub::with(|hub| hub.add_switch_hook(hook.clone()));
    SwitchHookGuard(hook)
}

impl Drop for SwitchHookGuard {
    fn drop(&mut self) {
        hub::try_with(|hub| hub.remove_switch_hook(&self.0));
    }
}

impl fmt::Debug for SwitchHookGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwitchHookGuard")
    }
}
