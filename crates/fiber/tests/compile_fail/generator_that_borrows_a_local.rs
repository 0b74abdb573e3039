//! A generator may be forgotten while it is suspended, so it may not borrow from the function that made it.
use warren_fiber::Generator;

fn main() {
    let text = String::from("local");
    let generator = Generator::<usize>::new(|g| {
        g.yield_(text.len());
    });
    drop(generator);
}
