//! The result of a fiber on another hub comes back from there.
use std::rc::Rc;

use warren_hub::HubHandle;

fn ask(hub: &HubHandle) {
    let _ = hub.spawn(|| Rc::new(1));
}

fn main() {}
