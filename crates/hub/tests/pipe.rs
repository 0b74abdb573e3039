//! Pipes between fibers, threads and by path.

mod support;

use std::io::{self, Read, Write};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::run;
use warren_hub::pipe::{PipeReader, PipeWriter, pipe};
use warren_hub::{JoinError, spawn, with_timeout, yield_now};

#[test]
fn more_than_a_pipe_holds_goes_through() {
    run(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writing = spawn(move || writer.write_all(&sent));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == expected);
        writing.join().unwrap().unwrap();
    });
}

#[test]
fn a_reader_that_has_gone_is_told_and_a_wait_can_be_killed() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let waiting = spawn(move || (&reader).read(&mut [0]));
        yield_now();
        waiting.kill();
        assert!(matches!(waiting.join(), Err(JoinError::Killed)));
        let error = writer.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn ends_are_passed_on_to_code_that_blocks() {
    run(|| {
        let (mut reader, writer) = pipe().unwrap();
        let fd = writer.into_blocking().unwrap();
        let thread = std::thread::spawn(move || {
            // More than the pipe holds: it would fail if it did not block.
            std::fs::File::from(fd).write_all(&[1; 200_000]).unwrap();
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), 200_000);
        thread.join().unwrap();
        let (std_reader, mut std_writer) = std::io::pipe().unwrap();
        std_writer.write_all(b"x").unwrap();
        let mut reader = PipeReader::from_fd(std_reader).unwrap();
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
        assert!(with_timeout(Duration::from_millis(5), || reader.read(&mut [0])).is_err());
        drop(std_writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_fifo_waits_for_its_other_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    run(move || {
        let opening = spawn({
            let path = path.clone();
            move || PipeWriter::open(path)
        });
        yield_now();
        assert!(!opening.is_finished(), "nobody reads yet");
        let mut reader = PipeReader::open(&path).unwrap();
        let mut writer = opening.join().unwrap().unwrap();
        let writing = spawn(move || writer.write_all(b"by path"));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "by path");
        writing.join().unwrap().unwrap();

        // The reader first: it is not the end when nobody has written yet.
        let mut reader = PipeReader::open(&path).unwrap();
        let reading = spawn(move || reader.read(&mut [0; 8]).unwrap());
        yield_now();
        assert!(!reading.is_finished());
        PipeWriter::open(&path).unwrap().write_all(b"late").unwrap();
        assert_eq!(reading.join().unwrap(), 4);
        assert!(PipeReader::open(folder.path().join("none")).is_err());
    });
}
