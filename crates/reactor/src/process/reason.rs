//! How a child has ended.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use warren_hub::signal::Signal;

/// How a child process has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessReason {
    /// With the exit code 0.
    #[error(transparent)]
    Done(ProcessDone),
    /// With another exit code, or by a signal.
    #[error(transparent)]
    Terminated(ProcessTerminated),
    /// Somebody else has reaped it, such as a handler of `SIGCHLD`.
    #[error("the process has ended, and how is not known: {0}")]
    Unknown(io::Error),
}

/// The process has ended with the exit code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the process has ended with exit code 0")]
pub struct ProcessDone;

/// The process has ended with an exit code that is not 0, or by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessTerminated {
    status: ExitStatus,
}

impl ProcessReason {
    /// The exit code; none after a signal.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Done(_) => Some(0),
            Self::Terminated(terminated) => terminated.exit_code(),
            Self::Unknown(_) => None,
        }
    }

    /// The number of the signal that has ended it.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Terminated(terminated) => terminated.signal(),
            Self::Done(_) | Self::Unknown(_) => None,
        }
    }

    /// The same once more, for somebody else.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Done(done) => Self::Done(*done),
            Self::Terminated(terminated) => Self::Terminated(*terminated),
            Self::Unknown(error) => Self::Unknown(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Whether it has ended with the exit code 0.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

impl From<io::Result<ExitStatus>> for ProcessReason {
    fn from(ended: io::Result<ExitStatus>) -> Self {
        match ended {
            Ok(status) if status.success() => Self::Done(ProcessDone),
            Ok(status) => Self::Terminated(ProcessTerminated { status }),
            Err(error) => Self::Unknown(error),
        }
    }
}

impl ProcessTerminated {
    /// The exit code; none after a signal.
    pub fn exit_code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The number of the signal that has ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Whether it has left a core file.
    pub fn core_dumped(&self) -> bool {
        self.status.core_dumped()
    }

    /// As the system has it.
    pub fn status(&self) -> ExitStatus {
        self.status
    }
}

impl fmt::Display for ProcessTerminated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.exit_code(), self.signal()) {
            (Some(code), _) => write!(f, "the process has ended with exit code {code}"),
            (None, Some(number)) => match Signal::from_named_raw(number) {
                Some(signal) => {
                    write!(f, "the process has been ended by signal {number} ({signal:?})")
                }
                None => write!(f, "the process has been ended by signal {number}"),
            },
            (None, None) => write!(f, "the process has ended: {}", self.status),
        }
    }
}

impl std::error::Error for ProcessTerminated {}
