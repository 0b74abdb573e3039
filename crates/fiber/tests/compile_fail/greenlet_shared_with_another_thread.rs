//! Nor may another thread switch to it through a reference.
use warren_fiber::Greenlet;

fn main() {
    let greenlet = Greenlet::new(|n: u32| n);
    std::thread::scope(|scope| {
        scope.spawn(|| greenlet.switch(1));
    });
}
