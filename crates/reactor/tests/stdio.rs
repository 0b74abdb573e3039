//! Standard input and output as a connection: pipes, files, terminals, sockets, `/dev/null`.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl};
use warren_hub::sync::Queue;
use warren_hub::{offload, run, sleep};
use warren_reactor::stdio::StandardIo;
use warren_reactor::{PeerAddr, Protocol, Reason, Transport};

type Log = Rc<Queue<String>>;

/// Sends back what it reads, in capitals; notes all but the data. `keep`: the end of the input is not the end.
struct Shout {
    log: Log,
    keep: bool,
}

impl Protocol for Shout {
    fn connection_made(&mut self, transport: &Transport) {
        assert_eq!(transport.peer(), &PeerAddr::Pipe);
        self.log.put("made".into()).unwrap();
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        match data {
            b"quit" => {
                transport.write(b"bye");
                transport.lose_connection();
            }
            b"end" => {
                transport.write(b"the end");
                transport.lose_write_connection();
            }
            b"abort" => transport.abort_connection(),
            b"panic" => panic!("as asked"),
            _ => transport.write(&data.to_ascii_uppercase()),
        }
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.log.put("read lost".into()).unwrap();
        if !self.keep {
            transport.lose_connection();
        }
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        self.log.put("write lost".into()).unwrap();
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.log.put(format!("lost: {reason}")).unwrap();
    }
}

#[track_caller]
fn expect(log: &Log, wanted: &[&str]) {
    for wanted in wanted {
        assert_eq!(log.get_timeout(Duration::from_secs(20)).unwrap(), *wanted);
    }
}

fn start(stdin: impl Into<OwnedFd>, stdout: impl Into<OwnedFd>, keep: bool) -> (Transport, Log) {
    let log = Log::new(Queue::unbounded());
    let shout = Box::new(Shout { log: log.clone(), keep });
    let transport = StandardIo::new().stdin(stdin).stdout(stdout).start(shout).unwrap();
    assert_eq!(log.try_get().unwrap(), "made");
    (transport, log)
}

/// A pipe that blocks, as the shell makes it, with one more handle on each end, as the shell's other children have.
struct Shared {
    reader: std::io::PipeReader,
    writer: std::io::PipeWriter,
}

impl Shared {
    fn new() -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        Self { reader, writer }
    }

    fn still_blocks(&self) {
        for end in [self.reader.as_fd(), self.writer.as_fd()] {
            assert!(!fcntl_getfl(end).unwrap().contains(OFlags::NONBLOCK), "others feel it");
        }
    }
}

fn read_exactly(mut from: impl Read + Send + 'static, bytes: usize) -> Vec<u8> {
    offload(move || {
        let mut data = vec![0; bytes];
        from.read_exact(&mut data).unwrap();
        data
    })
}

fn read_all(mut from: impl Read + Send + 'static) -> String {
    offload(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn pipes_carry_a_conversation_and_block_as_before() {
    run(|| {
        let (input, output) = (Shared::new(), Shared::new());
        let theirs = (input.reader.try_clone().unwrap(), output.writer.try_clone().unwrap());
        let (_, log) = start(theirs.0, theirs.1, false);
        (&input.writer).write_all(b"hello").unwrap();
        assert_eq!(read_exactly(output.reader.try_clone().unwrap(), 5), b"HELLO");
        (&input.writer).write_all(b"once more").unwrap();
        assert_eq!(read_exactly(output.reader.try_clone().unwrap(), 9), b"ONCE MORE");
        input.still_blocks();
        output.still_blocks();
        drop(input);
        expect(&log, &["read lost", "lost: closed by the peer"]);
        let Shared { reader, writer } = output;
        drop(writer);
        assert_eq!(read_all(reader), "", "and is closed");
    });
}

#[test]
fn either_half_may_end_alone() {
    run(|| {
        let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let (transport, log) = start(input.0, output.1, true);
        let mut writer = input.1;
        writer.write_all(b"end").unwrap();
        // The reader sees the end, though the connection goes on.
        assert_eq!(read_all(output.0), "the end");
        expect(&log, &["write lost"]);
        transport.write(b"nobody hears this");
        writer.write_all(b"still read").unwrap();
        drop(writer);
        expect(&log, &["read lost", "lost: closed by the peer"]);

        let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let (transport, log) = start(input.0, output.1, true);
        drop(input.1);
        expect(&log, &["read lost"]);
        transport.write(b"still written");
        assert_eq!(read_exactly(output.0.try_clone().unwrap(), 13), b"still written");
        transport.lose_connection();
        expect(&log, &["lost: closed by the peer"]);
        assert_eq!(read_all(output.0), "");
    });
}

#[test]
fn an_end_that_comes_in_a_pause_is_told_after_it() {
    run(|| {
        let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let (transport, log) = start(input.0, output.1, false);
        // Until what is ready at first has been looked at.
        sleep(Duration::from_millis(1));
        transport.pause_reading();
        let mut writer = input.1;
        writer.write_all(b"last").unwrap();
        drop(writer);
        sleep(Duration::from_millis(5));
        assert!(log.is_empty());
        transport.resume_reading();
        expect(&log, &["read lost", "lost: closed by the peer"]);
        assert_eq!(read_all(output.0), "LAST");
    });
}

#[test]
fn it_ends_once_whoever_ends_it() {
    run(|| {
        for (word, answer, reason) in [
            ("quit", "bye", "lost: closed here"),
            ("abort", "", "lost: aborted here"),
            ("panic", "", "lost: the protocol panicked: as asked"),
        ] {
            let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
            let (transport, log) = start(input.0, output.1, true);
            let mut writer = input.1;
            writer.write_all(word.as_bytes()).unwrap();
            expect(&log, &[reason]);
            transport.lose_connection();
            transport.abort_connection();
            transport.write(b"x");
            assert_eq!(read_all(output.0), answer);
            // Nobody reads any more.
            assert!(writer.write_all(b"x").is_err());
            assert!(log.is_empty());
        }
    });
}

#[test]
fn a_reader_that_goes_ends_it() {
    run(|| {
        let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let (_transport, log) = start(input.0, output.1, true);
        drop(output.0);
        let lost = log.get_timeout(Duration::from_secs(20)).unwrap();
        assert!(lost.contains("Broken pipe"), "{lost}");
        drop(input.1);
    });
}

#[test]
fn files_are_read_from_where_they_are_and_written_to_where_they_end() {
    run(|| {
        let mut source = tempfile::tempfile().unwrap();
        let text = "line\n".repeat(100_000);
        write!(source, "skipped{text}").unwrap();
        source.seek(std::io::SeekFrom::Start(7)).unwrap();
        let mut target = tempfile::tempfile().unwrap();
        target.write_all(b"before ").unwrap();
        let (source, output) = (OwnedFd::from(source), target.try_clone().unwrap());
        let (_transport, log) = start(source, output, false);
        expect(&log, &["read lost", "lost: closed by the peer"]);
        target.write_all(b"after").unwrap();
        target.seek(std::io::SeekFrom::Start(0)).unwrap();
        let written = read_all(target);
        assert_eq!(written, format!("before {}after", text.to_ascii_uppercase()));
    });
}

#[test]
fn reading_a_file_pauses() {
    run(|| {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&[b'x'; 300_000]).unwrap();
        source.seek(std::io::SeekFrom::Start(0)).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let (transport, log) = start(OwnedFd::from(source), writer, false);
        transport.pause_reading();
        sleep(Duration::from_millis(5));
        assert!(log.is_empty());
        assert_eq!(transport.buffered(), 0);
        transport.resume_reading();
        assert_eq!(read_exactly(reader.try_clone().unwrap(), 300_000).len(), 300_000);
        expect(&log, &["read lost", "lost: closed by the peer"]);
        drop(reader);
    });
}

#[test]
fn nothing_comes_from_dev_null_and_goes_there() {
    run(|| {
        let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
        let (transport, log) = start(null(), null(), true);
        expect(&log, &["read lost"]);
        transport.write(&[b'x'; 1_000_000]);
        transport.lose_connection();
        expect(&log, &["lost: closed by the peer"]);
        // A full disk is an error, and not silence.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (transport, log) = start(null(), full, true);
        transport.write(b"x");
        let mut told = log.get_timeout(Duration::from_secs(20)).unwrap();
        if told == "read lost" {
            told = log.get_timeout(Duration::from_secs(20)).unwrap();
        }
        assert!(told.contains("No space left"), "{told}");
    });
}

#[test]
fn a_socket_on_both_is_not_changed_for_others() {
    run(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_transport, log) =
            start(theirs.try_clone().unwrap(), theirs.try_clone().unwrap(), true);
        (&ours).write_all(b"hello").unwrap();
        assert_eq!(read_exactly(ours.try_clone().unwrap(), 5), b"HELLO");
        assert!(!fcntl_getfl(&theirs).unwrap().contains(OFlags::NONBLOCK));
        (&ours).write_all(b"end").unwrap();
        // Half a close, although another handle on the socket is open.
        assert_eq!(read_all(ours.try_clone().unwrap()), "the end");
        expect(&log, &["write lost"]);
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        expect(&log, &["read lost", "lost: closed by the peer"]);
    });
}

#[test]
fn a_terminal_speaks_in_lines_and_keeps_its_mode() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    run(|| {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
        let theirs = || terminal.try_clone().unwrap();
        let (transport, log) = start(theirs(), theirs(), true);
        let mut master = File::from(master);
        master.write_all(b"one\ntwo\n").unwrap();
        // The terminal's echo, and ours: how they mix is not said.
        let text = String::from_utf8(read_exactly(master.try_clone().unwrap(), 20)).unwrap();
        for part in ["one\r\n", "two\r\n", "ONE\r\n", "TWO\r\n"] {
            assert!(text.contains(part), "{text:?}");
        }
        assert!(!fcntl_getfl(&terminal).unwrap().contains(OFlags::NONBLOCK));
        // Control-D.
        master.write_all(&[4]).unwrap();
        expect(&log, &["read lost"]);
        transport.lose_connection();
        expect(&log, &["lost: closed by the peer"]);
    });
}

#[test]
fn a_slow_reader_holds_the_writer_back() {
    run(|| {
        let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let (transport, log) = start(input.0, output.1, true);
        transport.write(&[b'x'; 3_000_000]);
        sleep(Duration::from_millis(1));
        assert!(transport.is_full());
        transport.lose_connection();
        assert_eq!(read_all(output.0).len(), 3_000_000, "all of it, before it closes");
        expect(&log, &["lost: closed here"]);
        drop(input.1);
    });
}

#[test]
fn a_simulation_has_no_standard_streams() {
    warren_hub::sim::check(0..1, |_world| {
        let (reader, writer) = std::io::pipe().unwrap();
        let log = Log::new(Queue::unbounded());
        let shout = Box::new(Shout { log, keep: false });
        let refused = StandardIo::new().stdin(reader).stdout(writer).start(shout);
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
    });
}

const AS_A_CHILD: &str = "WARREN_TEST_STDIO_CHILD";

/// What the test below runs as a program of its own: says something, ends its output, and lives on until its input ends.
#[test]
fn a_program_that_ends_its_output() {
    if std::env::var_os(AS_A_CHILD).is_none() {
        return;
    }
    run(|| {
        let log = Log::new(Queue::unbounded());
        let shout = Box::new(Shout { log: log.clone(), keep: true });
        let transport = StandardIo::new().start(shout).unwrap();
        transport.write(b"the last words");
        transport.lose_write_connection();
        expect(&log, &["made", "write lost"]);
        // To nobody, and to no descriptor that has come to have this number.
        println!("never seen");
        expect(&log, &["read lost", "lost: closed by the peer"]);
    });
}

#[test]
fn the_end_of_the_real_output_is_seen_while_the_program_lives() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_program_that_ends_its_output", "--nocapture"])
        .env(AS_A_CHILD, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.ends_with("the last words"), "{said}");
    assert!(child.try_wait().unwrap().is_none(), "it still lives");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
