//! [`OpenOptions`].

use std::io;
use std::path::Path;

use super::File;
use super::call::call;
use crate::driver::{FileOp, Open};

/// How a file is opened, as `std::fs::OpenOptions`.
///
/// ```
/// use std::io::Write;
/// use warren_hub::fs::OpenOptions;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("log");
/// warren_hub::run(move || {
///     let mut log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
///     log.write_all(b"started\n")
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions(Open);

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Nothing is allowed yet.
    pub const fn new() -> Self {
        Self(Open {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o666,
            custom_flags: 0,
        })
    }

    /// To read.
    pub const fn read(mut self, read: bool) -> Self {
        self.0.read = read;
        self
    }

    /// To write.
    pub const fn write(mut self, write: bool) -> Self {
        self.0.write = write;
        self
    }

    /// To write at the end, wherever that is by then.
    pub const fn append(mut self, append: bool) -> Self {
        self.0.append = append;
        self
    }

    /// What the file holds goes.
    pub const fn truncate(mut self, truncate: bool) -> Self {
        self.0.truncate = truncate;
        self
    }

    /// A file that is not there is made.
    pub const fn create(mut self, create: bool) -> Self {
        self.0.create = create;
        self
    }

    /// The file must not be there, and is made.
    pub const fn create_new(mut self, create_new: bool) -> Self {
        self.0.create_new = create_new;
        self
    }

    /// Permissions of a file that is made, before the process's mask takes some away. 0o666 if not set.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.0.mode = mode;
        self
    }

    /// More flags of `open(2)`, such as `O_DIRECT`.
    pub const fn custom_flags(mut self, flags: i32) -> Self {
        self.0.custom_flags = flags;
        self
    }

    /// Opens a file so.
    ///
    /// # Suspends
    /// Until it is open.
    ///
    /// # Errors
    /// When it cannot be opened, and for options that contradict one another.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let handle = call("open", path, FileOp::Open { path: path.into(), how: self.0 })?.opened();
        Ok(File::of(handle, path, self.0.append))
    }
}
