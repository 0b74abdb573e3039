//! A handle of a scoped fiber, whose result may borrow, does not leave the scope.
use warren_hub::scope;

fn main() {
    let text = String::from("mine");
    let handle = scope(|s| s.spawn(|| text.as_str()));
    let _ = handle.join();
}
