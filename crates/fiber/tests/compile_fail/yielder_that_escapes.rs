//! Only the generator itself may yield, and only while it runs.
use std::cell::RefCell;
use std::rc::Rc;

use warren_fiber::Generator;

fn main() {
    let kept = Rc::new(RefCell::new(None));
    let slot = kept.clone();
    let mut generator = Generator::<u32>::new(move |g| {
        *slot.borrow_mut() = Some(g);
    });
    generator.next();
    drop(kept);
}
