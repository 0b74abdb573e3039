//! The scope itself does not leave the call: nobody would wait for what is spawned in it later.
use std::cell::RefCell;

use warren_hub::{Scope, scope};

fn main() {
    let kept: RefCell<Option<&Scope<'_, '_>>> = RefCell::new(None);
    scope(|s| {
        *kept.borrow_mut() = Some(s);
    });
}
