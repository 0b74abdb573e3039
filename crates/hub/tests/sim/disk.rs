//! The simulated disk: what a crash leaves of it, and how it fails.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::fs::{self, File};
use warren_hub::sim;

/// What `read` finds after `write` was run on a node that then lost its power, over 100 seeds.
fn after_crash<T: Ord + 'static>(
    write: impl Fn() + Clone + 'static,
    read: impl Fn() -> T + Clone + 'static,
) -> BTreeSet<T> {
    let found = Rc::new(RefCell::new(BTreeSet::new()));
    let all = found.clone();
    sim::check(0..100, move |world| {
        let node = world.machine("machine");
        node.start(write.clone());
        node.join();
        let (all, read) = (all.clone(), read.clone());
        node.restart(move || {
            all.borrow_mut().insert(read());
        });
        node.join();
    });
    found.take()
}

#[test]
fn files_work_as_on_any_disk() {
    sim::check(0..20, |world| {
        let node = world.node("machine", || {
            fs::create_dir_all("/data/deep").unwrap();
            fs::write("/data/a", b"one").unwrap();
            fs::rename("/data/a", "/data/deep/b").unwrap();
            assert!(!fs::exists("/data/a").unwrap());
            assert_eq!(fs::read_to_string("/data/deep/../deep/b").unwrap(), "one");
            assert_eq!(fs::metadata("/data/deep/b").unwrap().len(), 3);
            let names: Vec<_> =
                fs::read_dir("/data").unwrap().map(|entry| entry.file_name()).collect();
            assert_eq!(names, ["deep"]);
            let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
            assert_eq!(kind(fs::remove_dir("/data/deep")), ErrorKind::DirectoryNotEmpty);
            assert_eq!(kind(fs::remove_file("/data/none")), ErrorKind::NotFound);
            assert_eq!(kind(fs::write("/none/a", b"")), ErrorKind::NotFound);
            assert_eq!(kind(fs::write("/data", b"")), ErrorKind::IsADirectory);
            assert_eq!(kind(File::create_new("/data/deep/b").map(drop)), ErrorKind::AlreadyExists);
            fs::remove_dir_all("/data").unwrap();
            assert!(!fs::exists("/data").unwrap());

            let file = File::options().read(true).write(true).create(true).open("/f").unwrap();
            let bytes: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
            file.write_all_at(&bytes, 100).unwrap();
            let mut back = vec![1; 20_100];
            file.read_exact_at(&mut back, 0).unwrap();
            assert!(back[..100] == [0; 100] && back[100..] == bytes);
            file.set_len(50).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 50);
        });
        node.join();
        assert_eq!(node.disk().read("/f").unwrap(), [0; 50]);
    });
}

#[test]
fn what_was_synced_with_its_name_stays() {
    let found = after_crash(
        || {
            let file = File::create("/f").unwrap();
            file.write_all_at(&[7; 10_000], 0).unwrap();
            file.sync_data().unwrap();
            fs::sync_dir("/").unwrap();
            file.write_all_at(&[7; 10_000], 10_000).unwrap();
        },
        || fs::read("/f").unwrap()[..10_000] == [7; 10_000],
    );
    assert_eq!(found, [true].into());
}

#[test]
fn what_was_not_synced_is_lost_kept_or_torn() {
    let found = after_crash(
        || {
            let file = File::create("/f").unwrap();
            file.write_all_at(&[1; 4096], 0).unwrap();
            file.sync_data().unwrap();
            fs::sync_dir("/").unwrap();
            file.write_all_at(&[2; 4096], 0).unwrap();
        },
        || {
            let bytes = fs::read("/f").unwrap();
            assert!(bytes.len() == 4096 && bytes.iter().all(|byte| [1, 2].contains(byte)));
            bytes.iter().filter(|&&byte| byte == 2).count()
        },
    );
    assert!(found.contains(&0) && found.contains(&4096), "{found:?}");
    assert!(found.len() > 3 && found.iter().all(|count| count % 512 == 0), "{found:?}");
}

#[test]
fn a_name_needs_its_directory_synced() {
    let made = after_crash(
        || File::create("/f").unwrap().sync_all().unwrap(),
        || fs::exists("/f").unwrap(),
    );
    assert_eq!(made, [false, true].into());

    let renamed = after_crash(
        || {
            for (path, text) in [("/old", "old"), ("/new", "new")] {
                fs::write(path, text).unwrap();
                File::open(path).unwrap().sync_all().unwrap();
            }
            fs::sync_dir("/").unwrap();
            fs::rename("/new", "/old").unwrap();
        },
        // A rename happens as a whole or not at all.
        || (fs::read_to_string("/old").unwrap(), fs::exists("/new").unwrap()),
    );
    assert_eq!(renamed, [("new".to_owned(), false), ("old".to_owned(), true)].into());
}

#[test]
fn a_kill_loses_nothing_that_was_written() {
    sim::check(0..20, |world| {
        let node = world.node("machine", || {
            fs::write("/f", b"here").unwrap();
            warren_hub::sleep(Duration::from_secs(60));
        });
        world.advance(Duration::from_secs(1));
        node.kill();
        assert_eq!(node.disk().read("/f").unwrap(), b"here");
    });
}

#[test]
fn disks_fail_when_told_to() {
    sim::check(0..20, |world| {
        let node = world.machine("machine");
        let on_it = |main: fn()| {
            node.start(main);
            node.join();
        };
        on_it(|| fs::write("/f", b"text").unwrap());
        node.disk().failing_reads(1.0);
        on_it(|| assert!(fs::read("/f").is_err()));
        node.disk().failing_reads(0.0).failing_writes(1.0);
        on_it(|| assert!(fs::write("/g", b"x").is_err()));
        node.disk().failing_writes(0.0).failing_syncs(1.0);
        on_it(|| {
            let file = File::create("/g").unwrap();
            file.write_all_at(b"x", 0).unwrap();
            assert!(file.sync_data().is_err() && fs::sync_dir("/").is_err());
        });
        node.disk().failing_syncs(0.0).flipping_reads(1.0);
        on_it(|| assert_ne!(fs::read("/f").unwrap(), b"text"));
        node.disk().flipping_reads(0.0).flip_bit("/f").unwrap();
        let flipped = node.disk().read("/f").unwrap();
        let bits = flipped.iter().zip(b"text").map(|(one, other)| (one ^ other).count_ones());
        assert_eq!(bits.sum::<u32>(), 1);
    });
}

#[test]
fn a_full_disk_says_so_and_has_room_again() {
    sim::check(0..20, |world| {
        let node = world.machine("machine");
        node.disk().capacity(64 << 10);
        node.start(|| {
            let error = fs::write("/big", vec![1; 100 << 10]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            fs::remove_file("/big").unwrap();
            fs::write("/small", vec![1; 1000]).unwrap();
        });
        node.join();
    });
}

#[test]
fn a_slow_disk_is_slow() {
    sim::check(0..5, |world| {
        let second = Duration::from_secs(1);
        let node = world.machine("machine");
        node.disk().latency(second..=2 * second);
        node.start(|| File::create("/f").unwrap().sync_all().unwrap());
        node.join();
        assert!(world.now() >= second);
    });
}
