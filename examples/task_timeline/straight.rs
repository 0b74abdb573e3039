//! A task as straight-line code, on a connection whose reads wait: of a thread, or of a fiber.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::journal::{Doing, Journal};
use crate::{Task, work};

pub(crate) fn run(task: Task, stream: impl Read + Write, journal: &Journal) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    for &(milliseconds, patience) in task.steps {
        journal.note(task, Doing::Running);
        work(milliseconds);
        if patience > 0 {
            journal.note(task, Doing::Waiting);
            stream.get_mut().write_all(format!("{patience}\n").as_bytes())?;
            stream.read_line(&mut answer)?;
        }
    }
    journal.note(task, Doing::Done);
    Ok(())
}
