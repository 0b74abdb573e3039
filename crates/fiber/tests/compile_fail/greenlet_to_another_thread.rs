//! A greenlet's stack belongs to its thread.
use warren_fiber::Greenlet;

fn main() {
    let greenlet = Greenlet::new(|n: u32| n);
    std::thread::spawn(move || greenlet.switch(1));
}
