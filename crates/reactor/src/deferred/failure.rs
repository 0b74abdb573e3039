//! [`Failure`]: why a `Deferred` has no value; [`AnyError`]: an error of any type.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use warren_hub::Panic;

/// Why a [`Deferred`](crate::Deferred) has no value (Twisted's `Failure`).
///
/// `Error` is the program's own; the rest happens to any Deferred. `?` turns an `E` into a `Failure<E>`, and for the
/// usual `Failure<AnyError>` any error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure<E = AnyError> {
    /// What was to be done has failed.
    Error(E),
    /// It was cancelled.
    Cancelled,
    /// It was cancelled by [`add_timeout`](crate::Deferred::add_timeout) after that time.
    TimedOut(Duration),
    /// Its [`Resolver`](crate::Resolver) was dropped: nobody is left who could give a value.
    Dropped,
    /// A callback, or the fiber that was to give the value, has panicked.
    Panicked(Panic),
}

impl<E> Failure<E> {
    /// The program's own error, if it is one.
    pub fn error(&self) -> Option<&E> {
        match self {
            Self::Error(error) => Some(error),
            _ => None,
        }
    }

    /// As [`error`](Self::error), by value.
    ///
    /// # Errors
    /// Itself, when it is of another kind.
    pub fn into_error(self) -> Result<E, Self> {
        match self {
            Self::Error(error) => Ok(error),
            other => Err(other),
        }
    }

    /// Whether it was cancelled, but not by a timeout.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// Whether it was cancelled by a timeout.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }

    /// The same with another error of the program's own.
    pub fn map<F>(self, convert: impl FnOnce(E) -> F) -> Failure<F> {
        match self {
            Self::Error(error) => Failure::Error(convert(error)),
            Self::Cancelled => Failure::Cancelled,
            Self::TimedOut(time) => Failure::TimedOut(time),
            Self::Dropped => Failure::Dropped,
            Self::Panicked(panic) => Failure::Panicked(panic),
        }
    }
}

impl Failure<AnyError> {
    /// The error, if it is an `X` (Twisted's `trap`).
    ///
    /// ```
    /// use std::io;
    /// use warren_reactor::{Deferred, Failure};
    ///
    /// let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    /// let port = Deferred::<u16>::fail(refused).add_errback(|failure: Failure| {
    ///     // Anything else goes on to the next errback.
    ///     let _refused: io::Error = failure.trap()?;
    ///     Ok(8007)
    /// });
    /// assert_eq!(port.wait().unwrap(), 8007);
    /// ```
    ///
    /// # Errors
    /// Itself, when it is something else.
    pub fn trap<X: StdError + Send + Sync + 'static>(self) -> Result<X, Self> {
        match self {
            Self::Error(error) => error.downcast().map_err(Self::Error),
            other => Err(other),
        }
    }
}

impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::Error(error)
    }
}

impl<X: StdError + Send + Sync + 'static> From<X> for Failure<AnyError> {
    fn from(error: X) -> Self {
        Self::Error(error.into())
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
            Self::TimedOut(time) => write!(f, "timed out after {time:?}"),
            Self::Dropped => f.write_str("its resolver was dropped without a result"),
            Self::Panicked(panic) => write!(f, "panicked: {}", panic.message().unwrap_or("?")),
        }
    }
}

impl<E: StdError + 'static> StdError for Failure<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Error(error) => error.source(),
            _ => None,
        }
    }
}

/// So that `?` works in a function whose errors are boxed.
///
/// ```
/// use warren_reactor::Deferred;
///
/// fn port(text: Deferred<&'static str>) -> Result<u16, Box<dyn std::error::Error>> {
///     Ok(text.add_callback(|text| Ok(text.parse()?)).wait()?)
/// }
///
/// assert_eq!(port(Deferred::succeed("8007")).unwrap(), 8007);
/// let error = port(Deferred::succeed("eight")).unwrap_err();
/// assert!(error.is::<std::num::ParseIntError>());
/// ```
impl From<Failure<AnyError>> for Box<dyn StdError + Send + Sync> {
    fn from(failure: Failure<AnyError>) -> Self {
        match failure.into_error() {
            Ok(error) => error.into_inner(),
            // Another kind of failure, and so without an error of its own.
            Err(other) => Box::new(other.map(|error| io::Error::other(error.into_inner()))),
        }
    }
}

impl From<Failure<AnyError>> for Box<dyn StdError> {
    fn from(failure: Failure<AnyError>) -> Self {
        Box::<dyn StdError + Send + Sync>::from(failure)
    }
}

impl From<AnyError> for Box<dyn StdError + Send + Sync> {
    fn from(error: AnyError) -> Self {
        error.into_inner()
    }
}

impl From<AnyError> for Box<dyn StdError> {
    fn from(error: AnyError) -> Self {
        error.into_inner()
    }
}

/// An error of any type: the error of a [`Deferred`](crate::Deferred) that names none. Any error converts into it by
/// `?`; a text by [`new`](Self::new).
// Not an `Error` itself: only then can any error be converted into it.
pub struct AnyError(Box<dyn StdError + Send + Sync>);

impl AnyError {
    /// Of an error or a text.
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The error as an `X`, if it is one.
    pub fn downcast_ref<X: StdError + 'static>(&self) -> Option<&X> {
        self.0.downcast_ref()
    }

    /// The error as an `X`, if it is one.
    ///
    /// # Errors
    /// Itself, when it is not.
    pub fn downcast<X: StdError + 'static>(self) -> Result<X, Self> {
        self.0.downcast().map(|error| *error).map_err(Self)
    }

    /// What it holds.
    pub fn into_inner(self) -> Box<dyn StdError + Send + Sync> {
        self.0
    }
}

impl<X: StdError + Send + Sync + 'static> From<X> for AnyError {
    fn from(error: X) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The error and its causes.
impl fmt::Debug for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
