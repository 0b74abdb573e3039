//! An `Rc` of a queue, handed to a fiber of another hub.
use std::rc::Rc;

use warren_hub::HubHandle;
use warren_hub::sync::Queue;

fn hand_over(hub: &HubHandle, queue: Rc<Queue<u32>>) {
    let _ = hub.spawn(move || queue.get().is_ok());
}

fn main() {}
