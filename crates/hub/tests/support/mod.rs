//! The suite runs on each driver: as binaries of its own on the default one, and once more within `uring.rs`, which
//! takes the same files as modules. `fs_threads.rs` does so with the tests of files.

use warren_hub::{DriverKind, Options};

/// For which driver this binary is.
fn options() -> Options {
    match env!("CARGO_CRATE_NAME") {
        "uring" => Options::new().driver(DriverKind::IoUring),
        "fs_threads" => Options::new().files_on_threads(),
        _ => Options::new(),
    }
}

/// As [`warren_hub::run`], on the binary's driver.
pub(crate) fn run<T: 'static>(main: impl FnOnce() -> T + 'static) -> T {
    match options().run(main) {
        Ok(value) => value,
        Err(error) => panic!("cannot run a hub: {error}"),
    }
}
