//! A handle belongs to the fiber's hub.
fn main() {
    warren_hub::run(|| {
        let handle = warren_hub::spawn(|| 1);
        std::thread::spawn(move || handle.join());
    });
}
