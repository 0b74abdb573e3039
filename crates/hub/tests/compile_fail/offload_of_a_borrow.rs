//! A job for another thread may outlive the fiber that waits for it, which can be killed.
fn main() {
    let text = String::from("mine");
    warren_hub::offload(|| text.len());
}
