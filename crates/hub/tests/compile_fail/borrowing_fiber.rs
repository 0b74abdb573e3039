//! A fiber may outlive who starts it, so it borrows nothing; one of a scope may.
use warren_hub::spawn;

fn main() {
    let text = String::from("mine");
    spawn(|| println!("{text}"));
}
