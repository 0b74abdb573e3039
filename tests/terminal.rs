//! The example of a terminal, under a pseudo-terminal: what a terminal would send is written, what it would show is read.

mod support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::{PATIENCE, example};

/// A program whose standard streams are a terminal of ours.
struct Terminal {
    child: Child,
    master: File,
    slave: File,
    output: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(name: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(path).unwrap();
        resize(&slave, 80, 24);
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let child =
            example(name).stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        let master = File::from(master);
        let (sender, output) = channel();
        let mut reader = master.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            // At the end, when nobody has the terminal open any more, this is an error.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let _ = sender.send(bytes[..count].to_vec());
            }
        });
        Self { child, master, slave, output, shown: String::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    /// Waits until `text` is shown, after what was waited for before.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.shown.find(text) {
                self.shown.drain(..place + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("'{text}' is not shown, but {:?}", self.shown),
            }
        }
    }

    /// Whether the terminal gives lines, and echoes, as shells want it.
    fn is_ordinary(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    fn finish(mut self) {
        assert!(self.child.wait().unwrap().success());
        assert!(self.is_ordinary(), "the terminal is as it was");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn keys_clicks_and_sizes_are_events() {
    let mut terminal = Terminal::start("terminal_events");
    terminal.expect("press keys, click, or press q to quit\r\n");
    assert!(!terminal.is_ordinary());
    terminal.send(b"a");
    terminal.expect("on_key_down: a\r\n");
    // Arrow up, a function key, a letter of two bytes, the tabulator; all in one piece.
    terminal.send("\x1b[A\x1bOP\u{e9}\t".as_bytes());
    for key in ["Up", "F1", "\u{e9}", "Tab"] {
        terminal.expect(&format!("on_key_down: {key}\r\n"));
    }
    // A sequence that comes in two pieces is one key.
    terminal.send(b"\x1b[");
    terminal.send(b"B");
    terminal.expect("on_key_down: Down\r\n");
    // The left button goes down and up, and then the right one; the terminal counts from 1.
    terminal.send(b"\x1b[<0;10;5M\x1b[<0;10;5m\x1b[<2;1;1M");
    terminal.expect("on_click: Left at 9, 4, click number 1\r\n");
    terminal.expect("on_click: Right at 0, 0, click number 2\r\n");
    resize(&terminal.slave, 100, 40);
    // To be told by the kernel, a program must have it as its controlling terminal.
    kill_process(Pid::from_child(&terminal.child), Signal::WINCH).unwrap();
    terminal.expect("on_resize: 100 columns, 40 rows\r\n");
    terminal.send(b"qqq");
    terminal.expect("goodbye");
    assert!(!terminal.shown.contains("on_key_down: q"));
    terminal.finish();
}

#[test]
fn an_interrupt_is_a_key_and_ends_it() {
    let mut terminal = Terminal::start("terminal_events");
    terminal.expect("to quit\r\n");
    terminal.send(b"\x03");
    terminal.expect("goodbye");
    terminal.finish();
}

#[test]
fn a_signal_puts_the_terminal_back() {
    let mut terminal = Terminal::start("terminal_events");
    terminal.expect("to quit\r\n");
    kill_process(Pid::from_child(&terminal.child), Signal::TERM).unwrap();
    terminal.expect("goodbye");
    terminal.finish();
}
