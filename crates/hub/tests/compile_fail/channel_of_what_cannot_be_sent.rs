//! A channel between hubs carries only what may change threads.
use std::rc::Rc;

fn main() {
    let (sender, _receiver) = warren_hub::channel(1);
    let _ = sender.send(Rc::new(1));
}
