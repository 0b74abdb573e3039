//! One ring: two queues shared with the kernel, and the call that hands the one over and waits for the other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, opcode, squeue};
use rustix::io::Errno;

use crate::driver::EventFlags;

/// What asks for no answer has this name.
const NOBODY: u64 = u64::MAX - 1;

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingDone {
    /// The name under which it was asked for.
    pub(crate) key: u64,
    /// What the system call would have returned, or the error as a negative number.
    pub(crate) result: i32,
    /// The same request will be answered again.
    pub(crate) more: bool,
}

pub(crate) struct Ring {
    uring: IoUring,
    /// What found the queue full.
    backlog: VecDeque<squeue::Entry>,
}

impl Ring {
    /// A ring that takes `entries` requests by one call. With `alone`, only this thread ever uses it, and it asks for
    /// completions in each turn of a loop: then the kernel need not interrupt the thread to complete something.
    pub(crate) fn new(entries: u32, alone: bool) -> io::Result<Self> {
        // The best first; older kernels refuse what they do not know.
        let mut kinds: Vec<fn(&mut io_uring::Builder)> = vec![
            |ring| {
                ring.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            },
            |ring| {
                ring.setup_coop_taskrun().setup_taskrun_flag();
            },
            |_| {},
        ];
        if !alone {
            kinds.drain(..2);
        }
        let mut refused = io::Error::from(Errno::NOSYS);
        for kind in kinds {
            let mut builder = IoUring::builder();
            kind(&mut builder);
            builder.dontfork().setup_clamp().setup_cqsize(entries * 16);
            match builder.build(entries) {
                Ok(uring) if uring.params().is_feature_ext_arg() => {
                    return Ok(Self { uring, backlog: VecDeque::new() });
                }
                Ok(_) => {
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "before Linux 5.11"));
                }
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    refused = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Whether a poll can stay armed: since Linux 5.13, which brought this mark too.
    pub(crate) fn polls_stay(&self) -> bool {
        self.uring.params().is_feature_resource_tagging()
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Which operations the kernel knows.
    pub(crate) fn probe(&self) -> Probe {
        let mut probe = Probe::new();
        // Refused, none is supported.
        let _ = self.uring.submitter().register_probe(&mut probe);
        probe
    }

    /// Queues a request; the next [`enter`](Self::enter) hands it over.
    ///
    /// # Safety
    /// Memory that the request names must stay valid, and must not be used otherwise, until its completion has come. A
    /// descriptor that it names must stay open until the request is handed over.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: the caller promises it.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        if pushed.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Asks for news of a descriptor under `key`: once, or (`multi`) again and again, as edges. It must stay open
    /// until that is handed over.
    pub(crate) fn poll_add(&mut self, fd: RawFd, key: u64, flags: EventFlags, multi: bool) {
        let poll = opcode::PollAdd::new(Fd(fd), flags.bits()).multi(multi).build().user_data(key);
        // SAFETY: the request names no memory. A number that means another file by then would be polled instead: news
        // under `key` are hints, and a wrong one costs an attempt in vain.
        unsafe { self.push(poll) };
    }

    /// Asks the kernel to give a request up. It completes either way, and a poll that has news at this moment too, which
    /// a `POLL_REMOVE` would leave armed.
    pub(crate) fn cancel(&mut self, key: u64) {
        let cancel = opcode::AsyncCancel::new(key).build().user_data(NOBODY);
        // SAFETY: it names neither memory nor a descriptor.
        unsafe { self.push(cancel) };
    }

    /// Hands over what is queued and waits for one completion, at most for `timeout`. Without waiting (a timeout of
    /// zero) and with nothing to do for the kernel, this is no system call.
    pub(crate) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut full = false;
        while self.refill() && !full {
            full = self.call(0, None)?;
        }
        match timeout {
            Some(Duration::ZERO) => {
                let queue = self.uring.submission();
                let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
                drop(queue);
                if !idle {
                    self.call(0, None)?;
                }
            }
            // Completions must be taken before the kernel takes requests again.
            _ if full => {}
            timeout => drop(self.call(1, timeout)?),
        }
        Ok(())
    }

    /// Moves what waits into the queue. True when some is left.
    fn refill(&mut self) -> bool {
        if self.backlog.is_empty() {
            return false;
        }
        let mut queue = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever called `push` promised it.
            if unsafe { queue.push(entry) }.is_err() {
                return true;
            }
            self.backlog.pop_front();
        }
        false
    }

    /// True when the kernel takes nothing more before its completions are taken.
    fn call(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<bool> {
        let queued = self.uring.submission().len() as u32;
        let timespec = timeout
            .map(|timeout| Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos()));
        let mut arguments = SubmitArgs::new();
        if let Some(timespec) = &timespec {
            arguments = arguments.timespec(timespec);
        }
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        // SAFETY: the flags are those for this kind of argument, which lives until the call is over.
        let entered =
            unsafe { self.uring.submitter().enter(queued, want, flags, Some(&arguments)) };
        match entered.as_ref().map_err(Errno::from_io_error) {
            Ok(_) => Ok(false),
            // The time is over, or a signal came: whoever cares has been told by its handler.
            Err(Some(Errno::TIME | Errno::INTR)) => Ok(false),
            Err(Some(Errno::BUSY | Errno::AGAIN)) => Ok(true),
            Err(_) => entered.map(|_| false),
        }
    }

    /// Takes all completions.
    pub(crate) fn take(&mut self, done: &mut Vec<RingDone>) {
        let taken = self.uring.completion().map(|entry| RingDone {
            key: entry.user_data(),
            result: entry.result(),
            more: io_uring::cqueue::more(entry.flags()),
        });
        done.extend(taken.filter(|done| done.key != NOBODY));
    }

    /// The ring as a descriptor: readable while it has completions.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor for as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }
}
