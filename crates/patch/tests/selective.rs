//! Only a part is patched in this process.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use warren_hub::{run, spawn, yield_now};
use warren_patch::{Patch, detect, is_patched};

#[test]
fn what_is_not_asked_for_stays_as_it_was() {
    assert!(!is_patched());
    Patch::NONE.apply();
    assert!(!is_patched());
    let only_sleep = Patch { sleep: true, ..Patch::NONE };
    only_sleep.apply();
    assert!(is_patched());
    assert_eq!(Patch::applied(), only_sleep);
    run(|| {
        let other = spawn(|| ());
        thread::sleep(Duration::from_millis(1));
        assert!(other.is_finished(), "sleep parks");
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let other = spawn(|| ());
        let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let note = told.clone();
        let detection = detect(move |call| note.borrow_mut().push(call.function));
        assert!(ours.read(&mut [0]).is_err());
        thread::sleep(Duration::from_millis(1));
        drop(detection);
        assert_eq!(*told.borrow(), ["recv"], "what parks is not told");
        drop(other);
        let other = spawn(|| ());
        assert!(ours.read(&mut [0]).is_err());
        assert!(!other.is_finished(), "reading blocks");
        yield_now();
        assert!(other.is_finished());
    });
}
