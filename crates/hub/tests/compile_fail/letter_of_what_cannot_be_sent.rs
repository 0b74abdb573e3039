//! A callback posted to another hub changes threads.
use std::cell::Cell;
use std::rc::Rc;

use warren_hub::HubHandle;

fn post(hub: &HubHandle) {
    let count = Rc::new(Cell::new(0));
    let _ = hub.post(move || count.set(1));
}

fn main() {}
