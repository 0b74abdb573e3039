//! A generator: Fibonacci numbers, one by one, as many as are asked for.
//!
//! `cargo run --example generator 10`

use warren::fiber::Generator;

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(10);
    let fibonacci = Generator::<u64>::new(|g| {
        let (mut one, mut two) = (0, 1);
        loop {
            g.yield_(one);
            (one, two) = (two, one + two);
        }
    });
    for number in fibonacci.take(count) {
        println!("{number}");
    }
}
