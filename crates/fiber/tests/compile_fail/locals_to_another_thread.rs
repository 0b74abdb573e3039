//! Fiber-locals need not be `Send`, so sets of them stay.
use warren_fiber::Locals;

fn main() {
    let locals = Locals::current();
    std::thread::spawn(move || locals.run(|| ()));
}
