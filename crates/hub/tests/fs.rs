//! Files: as `std::fs` has them, with the fiber parked meanwhile.

mod support;

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use proptest::prelude::*;
use support::run;
use warren_hub::fs::{self, File, FileType, OpenOptions};
use warren_hub::{sleep, spawn, yield_now};

/// A folder of its own for each test; runs `body` on a fiber.
fn in_folder<T: 'static>(body: impl FnOnce(&Path) -> T + 'static) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    run(move || body(&path))
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
}

/// Lets others run until `done`.
fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn whole_files() {
    in_folder(|folder| {
        let path = folder.join("file");
        fs::write(&path, "some text").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"some text");
        assert_eq!(fs::read_to_string(&path).unwrap(), "some text");
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&path).unwrap(), [0xff]);
        let large: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        fs::write(&path, &large).unwrap();
        assert!(fs::read(&path).unwrap() == large);
        assert_eq!(fs::copy(&path, folder.join("copy")).unwrap(), large.len() as u64);
        assert!(std::fs::read(folder.join("copy")).unwrap() == large);
        assert!(fs::read("/proc/self/status").unwrap().starts_with(b"Name:"), "of unknown length");
    });
}

#[test]
fn the_position_moves_as_in_std() {
    in_folder(|folder| {
        let mut file = File::create_new(folder.join("file")).unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(file.stream_position().unwrap(), 10);
        assert_eq!(file.seek(SeekFrom::Start(2)).unwrap(), 2);
        let mut two = [0; 2];
        file.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"23");
        assert_eq!(file.seek(SeekFrom::Current(-1)).unwrap(), 3);
        let mut clone = file.try_clone().unwrap();
        clone.read_exact(&mut two).unwrap();
        assert_eq!((&two, file.stream_position().unwrap()), (b"34", 5));
        assert_eq!(file.seek(SeekFrom::End(-1)).unwrap(), 9);
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "9");
        assert_eq!(file.read(&mut two).unwrap(), 0);
        assert_eq!(file.seek(SeekFrom::End(-11)).unwrap_err().kind(), ErrorKind::InvalidInput);
        file.seek(SeekFrom::Start(12)).unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"0123456789\0\0x");
    });
}

#[test]
fn an_append_goes_to_the_end() {
    in_folder(|folder| {
        let path = folder.join("log");
        fs::write(&path, "first\n").unwrap();
        let mut log = OpenOptions::new().read(true).append(true).open(&path).unwrap();
        log.write_all(b"second\n").unwrap();
        assert_eq!(log.stream_position().unwrap(), 13);
        log.rewind().unwrap();
        log.write_all(b"third\n").unwrap();
        log.rewind().unwrap();
        let lines: Vec<_> = BufReader::new(log).lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["first", "second", "third"]);
        let std = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        File::from_std(std, &path).write_all(b"fourth\n").unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("third\nfourth\n"));
    });
}

#[test]
fn reading_and_writing_at_offsets() {
    in_folder(|folder| {
        let file = File::create_new(folder.join("file")).unwrap();
        file.write_all_at(b"abcdef", 2).unwrap();
        file.write_bytes_at(Bytes::from_static(b"XY"), 4).unwrap();
        let (written, buffer) = file.write_owned_at(b"Z".to_vec(), 7);
        written.unwrap();
        assert_eq!(buffer, b"Z");
        let mut six = [0; 6];
        file.read_exact_at(&mut six, 2).unwrap();
        assert_eq!(&six, b"abXYeZ");
        let error = file.read_exact_at(&mut six, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let mut buffer = Vec::with_capacity(4);
        buffer.push(b'>');
        let (read, buffer) = file.read_owned_at(buffer, 2);
        assert_eq!((read.unwrap(), &buffer[..]), (3, &b">abX"[..]));
        assert_eq!((&file).stream_position().unwrap(), 0);
    });
}

#[test]
fn lengths_metadata_and_syncing() {
    in_folder(|folder| {
        let path = folder.join("file");
        let file = OpenOptions::new().write(true).create(true).mode(0o600).open(&path).unwrap();
        file.set_len(5).unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.mode()), (5, 0o600));
        assert!(metadata.is_file() && !metadata.is_dir());
        assert!(metadata.modified().elapsed().unwrap().as_secs() < 3600);
        assert_eq!(fs::metadata(&path).unwrap(), metadata);
        match file.allocate(0, 8192) {
            Ok(()) => assert_eq!(file.metadata().unwrap().len(), 8192),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
        }
        fs::sync_dir(folder).unwrap();
        assert_eq!(file.read_at(&mut [0], 0).unwrap_err().to_string(), {
            format!("cannot read {}: Bad file descriptor (os error 9)", path.display())
        });
    });
}

#[test]
fn names_and_directories() {
    in_folder(|folder| {
        let (one, two) = (folder.join("one"), folder.join("a/b/two"));
        fs::write(&one, "1").unwrap();
        assert_eq!(fs::create_dir(folder.join("a/b")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::rename(&one, &two).unwrap();
        assert!(!fs::exists(&one).unwrap());
        std::os::unix::fs::symlink(&two, &one).unwrap();
        assert!(fs::exists(&one).unwrap());
        assert!(fs::metadata(&one).unwrap().is_file());
        assert!(fs::symlink_metadata(&one).unwrap().is_symlink());
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| (entry.path(), entry.file_type())).collect();
        names.sort_by_key(|(path, _)| path.clone());
        assert_eq!(names, [(folder.join("a"), FileType::Dir), (one.clone(), FileType::Symlink)]);
        let kind = fs::remove_dir(folder.join("a")).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::DirectoryNotEmpty);
        fs::remove_file(&one).unwrap();
        fs::remove_dir_all(folder.join("a")).unwrap();
        fs::create_dir(&one).unwrap();
        assert_eq!(fs::create_dir(&one).unwrap_err().kind(), ErrorKind::AlreadyExists);
        fs::remove_dir(&one).unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    });
}

#[test]
fn errors_name_the_path_and_keep_the_cause() {
    in_folder(|folder| {
        let path = folder.join("nothing");
        let error = File::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let path = path.display();
        let text = format!("cannot open {path}: No such file or directory (os error 2)");
        assert_eq!(error.to_string(), text);
        let cause = error.get_ref().and_then(|error| error.source()).unwrap();
        let cause: &io::Error = cause.downcast_ref().unwrap();
        assert_eq!(cause.raw_os_error(), Some(2));
        let error = OpenOptions::new().open(folder.join("nothing")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = fs::remove_file(folder.join("nul\0")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn others_run_while_a_fiber_waits_for_a_file() {
    in_folder(|folder| {
        // Opening one end of a named pipe waits for the other.
        let path = folder.join("fifo");
        fifo(&path);
        let reading = spawn({
            let path = path.clone();
            move || fs::read_to_string(&path).unwrap()
        });
        for _ in 0..10 {
            yield_now();
        }
        assert!(!reading.is_finished());
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"through the pipe").unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap(), "through the pipe");
    });
}

#[test]
fn a_killed_fiber_goes_at_once_and_its_operation_is_carried_out() {
    in_folder(|folder| {
        let path = folder.join("fifo");
        fifo(&path);
        let waiting = spawn({
            let path = path.clone();
            move || drop(File::open(path))
        });
        yield_now();
        waiting.kill();
        assert!(waiting.join().is_err());
        // The other end is opened still: opened so, it answers ENXIO while nobody reads.
        until(|| {
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            OpenOptions::new().write(true).custom_flags(flags).open(&path).is_ok()
        });

        let path = folder.join("file");
        let large = vec![7; 4 << 20];
        let file = File::create(&path).unwrap();
        let writing = spawn({
            let large = large.clone();
            move || drop(file.write_owned_at(large, 0))
        });
        yield_now();
        writing.kill();
        drop(writing.join());
        until(|| fs::metadata(&path).unwrap().len() == large.len() as u64);
        until(|| fs::read(&path).unwrap() == large);
    });
}

#[test]
fn what_a_destructor_writes_while_its_fiber_unwinds_is_written() {
    struct LastWords(Rc<File>, Rc<Cell<bool>>);
    impl Drop for LastWords {
        fn drop(&mut self) {
            // It does not wait, but another thread may be fast.
            let as_told = match self.0.write_at(b"bye", 0) {
                Ok(count) => count == 3,
                Err(error) => error.kind() == ErrorKind::TimedOut,
            };
            self.1.set(as_told);
        }
    }
    in_folder(|folder| {
        let file = Rc::new(File::create_new(folder.join("file")).unwrap());
        let dropped = Rc::new(Cell::new(false));
        let dying = spawn({
            let words = LastWords(file.clone(), dropped.clone());
            move || {
                let _words = words;
                sleep(std::time::Duration::from_secs(3600));
            }
        });
        yield_now();
        dying.kill();
        assert!(dying.join().is_err());
        assert!(dropped.get());
        until(|| file.metadata().unwrap().len() == 3);
    });
}

#[test]
fn clones_take_turns_and_offsets_do_not() {
    in_folder(|folder| {
        let file = File::create_new(folder.join("file")).unwrap();
        let writers = (0..50u8).map(|n| {
            let mut file = file.try_clone().unwrap();
            spawn(move || file.write_all(&[n; 100]).unwrap())
        });
        warren_hub::join_all(writers.collect::<Vec<_>>());
        let bytes = fs::read(file.path()).unwrap();
        assert_eq!(bytes.len(), 5000);
        assert!(bytes.chunks(100).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])));
        let readers = (0..50u64).map(|n| {
            let file = file.try_clone().unwrap();
            spawn(move || {
                let mut chunk = [0; 100];
                file.read_exact_at(&mut chunk, n * 100).unwrap();
                chunk[0]
            })
        });
        let mut seen: Vec<u8> =
            readers.collect::<Vec<_>>().into_iter().map(|reader| reader.join().unwrap()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..50));
    });
}

#[test]
fn a_hub_that_ends_leaves_operations_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("file");
    run({
        let path = path.clone();
        move || {
            let file = File::create(&path).unwrap();
            spawn(move || drop(file.write_owned_at(vec![1; 1 << 20], 0)));
            yield_now();
        }
    });
    let start = std::time::Instant::now();
    while std::fs::metadata(&path).unwrap().len() < 1 << 20 {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
}

/// One call, for a file of ours and one of the standard library's.
#[derive(Clone, Debug)]
enum Call {
    Read(usize),
    Write(Vec<u8>),
    Seek(SeekFrom),
    SetLen(u64),
    ReadAt(usize, u64),
    WriteAt(Vec<u8>, u64),
    ReadToEnd,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let call = prop_oneof![
        (0..40usize).prop_map(Call::Read),
        bytes().prop_map(Call::Write),
        (0..100u64).prop_map(|to| Call::Seek(SeekFrom::Start(to))),
        (-100..100i64).prop_map(|by| Call::Seek(SeekFrom::Current(by))),
        (-100..50i64).prop_map(|by| Call::Seek(SeekFrom::End(by))),
        (0..100u64).prop_map(Call::SetLen),
        (0..40usize, 0..100u64).prop_map(|(count, at)| Call::ReadAt(count, at)),
        (bytes(), 0..100u64).prop_map(|(data, at)| Call::WriteAt(data, at)),
        Just(Call::ReadToEnd),
    ];
    prop::collection::vec(call, 1..30)
}

/// What it did: a number or the kind of the error, and bytes read.
type Outcome = (Result<u64, ErrorKind>, Vec<u8>);

fn outcome<F: Read + Write + Seek>(
    file: &mut F,
    call: &Call,
    set_len: impl Fn(&F, u64) -> io::Result<()>,
    read_at: impl Fn(&F, &mut [u8], u64) -> io::Result<usize>,
    write_at: impl Fn(&F, &[u8], u64) -> io::Result<usize>,
) -> Outcome {
    let mut bytes = Vec::new();
    let result = match call {
        Call::Read(count) => {
            bytes.resize(*count, 0);
            file.read(&mut bytes).map(|count| count as u64)
        }
        Call::Write(data) => file.write(data).map(|count| count as u64),
        Call::Seek(to) => file.seek(*to),
        Call::SetLen(len) => set_len(file, *len).map(|()| 0),
        Call::ReadAt(count, at) => {
            bytes.resize(*count, 0);
            read_at(file, &mut bytes, *at).map(|count| count as u64)
        }
        Call::WriteAt(data, at) => write_at(file, data, *at).map(|count| count as u64),
        Call::ReadToEnd => file.read_to_end(&mut bytes).map(|count| count as u64),
    };
    (result.map_err(|error| error.kind()), bytes)
}

/// The same calls on both; whatever is told must be the same, and what is in the files at the end.
fn compare(calls: &[Call], append: bool) {
    let calls = calls.to_vec();
    in_folder(move |folder| {
        use std::os::unix::fs::FileExt;
        let (one, other) = (folder.join("ours"), folder.join("theirs"));
        let ours = OpenOptions::new().read(true).write(true).append(append).create(true);
        let mut ours = ours.open(&one).unwrap();
        let mut theirs = std::fs::OpenOptions::new();
        theirs.read(true).write(true).append(append).create(true);
        let mut theirs = theirs.open(&other).unwrap();
        for call in &calls {
            let ours = outcome(&mut ours, call, File::set_len, File::read_at, File::write_at);
            let theirs = outcome(
                &mut theirs,
                call,
                std::fs::File::set_len,
                std::fs::File::read_at,
                std::fs::File::write_at,
            );
            assert_eq!(ours, theirs, "{call:?}");
        }
        assert_eq!(ours.stream_position().unwrap(), theirs.stream_position().unwrap());
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&other).unwrap());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_behave_as_the_standard_librarys(calls in calls()) {
        compare(&calls, false);
    }

    #[test]
    fn files_to_append_behave_as_the_standard_librarys(mut calls in calls()) {
        // After an append the position is the end, also when that moves before anyone asks.
        calls.retain(|call| !matches!(call, Call::SetLen(_) | Call::WriteAt(..)));
        compare(&calls, true);
    }
}
