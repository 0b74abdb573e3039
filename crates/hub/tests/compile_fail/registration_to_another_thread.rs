//! A registration ends on the hub that it was made on.
use warren_hub::io::Registration;

fn send(registration: Registration) {
    std::thread::spawn(move || drop(registration));
}

fn main() {}
