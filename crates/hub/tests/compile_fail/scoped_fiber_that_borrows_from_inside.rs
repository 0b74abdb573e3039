//! A scoped fiber borrows what outlives the scope, and not what the scope's closure owns.
use warren_hub::scope;

fn main() {
    scope(|s| {
        let text = String::from("the closure's");
        s.spawn(|| println!("{text}"));
    });
}
