//! A generator's stack belongs to its thread.
use warren_fiber::Generator;

fn main() {
    let mut generator = Generator::<u32>::new(|g| g.yield_from(0..3));
    std::thread::spawn(move || generator.next());
}
