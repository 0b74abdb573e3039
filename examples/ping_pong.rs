//! Two greenlets that switch to each other, and hand a ball over each time.
//!
//! `cargo run --example ping_pong`

use warren::fiber::Greenlet;

fn main() {
    let pong = Greenlet::new(|mut ball: u32| {
        loop {
            println!("pong {ball}");
            ball = Greenlet::parent_switch(ball + 1);
        }
    });
    let other = pong.clone();
    let ping = Greenlet::new(move |mut ball: u32| {
        while ball < 6 {
            println!("ping {ball}");
            ball = other.switch(ball + 1);
        }
        ball
    });
    // What `pong` gives to its parent goes to `ping`.
    pong.set_parent(Some(&ping));
    println!("the ball was hit {} times", ping.switch(0));
}
