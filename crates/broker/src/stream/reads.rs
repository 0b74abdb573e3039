//! The reading thread, as the engine sees it: what is asked for, and what was found.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::reader::{self, Found, Read};
use crate::queue::QueueKey;

/// Readings that are on their way at once: what they find is in memory until consumers have it.
const READS_MAX: usize = 64;

/// For whom something is read.
pub(crate) type Token = (QueueKey, u64);

/// Called on the reading thread: something was found.
pub(crate) type Wake = Box<dyn Fn() + Send>;

pub(crate) struct Reads {
    /// `None` once the thread is to end.
    requests: Option<mpsc::Sender<(Token, Read)>>,
    found: Arc<Mutex<Vec<(Token, Found)>>>,
    /// What has to wait until others have been read.
    waiting: VecDeque<(Token, Read)>,
    on_their_way: usize,
    thread: Option<thread::JoinHandle<()>>,
}

impl Reads {
    pub(crate) fn start(wake: Wake) -> io::Result<Self> {
        let (requests, received) = mpsc::channel();
        let found = Arc::new(Mutex::new(Vec::new()));
        let results = found.clone();
        let thread = thread::Builder::new().name("warren-streams".into()).spawn(move || {
            reader::serve(&received, |token, found| {
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((token, found));
                drop(results);
                wake();
            });
        })?;
        let (waiting, thread) = (VecDeque::new(), Some(thread));
        Ok(Self { requests: Some(requests), found, waiting, on_their_way: 0, thread })
    }

    pub(crate) fn ask(&mut self, token: Token, read: Read) {
        self.waiting.push_back((token, read));
        self.send();
    }

    #[cfg(test)]
    pub(crate) fn is_busy(&self) -> bool {
        self.on_their_way != 0
    }

    fn send(&mut self) {
        while self.on_their_way < READS_MAX
            && let Some(request) = self.waiting.pop_front()
        {
            self.on_their_way += 1;
            if let Some(requests) = &self.requests {
                // The thread ends after this sender.
                let _ = requests.send(request);
            }
        }
    }

    /// What has been found since.
    pub(crate) fn take(&mut self) -> Vec<(Token, Found)> {
        if self.on_their_way == 0 {
            return Vec::new();
        }
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        self.on_their_way -= found.len();
        self.send();
        found
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads streams has panicked");
        }
    }
}
