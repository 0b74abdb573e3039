//! What a fiber borrows stays where it is until the scope ends.
use warren_hub::scope;

fn main() {
    let text = String::from("mine");
    scope(|s| {
        s.spawn(|| println!("{text}"));
        drop(text);
    });
}
