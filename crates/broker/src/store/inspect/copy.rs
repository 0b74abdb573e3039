//! A copy of the definitions. Where others may not read the original they may not read the copy either.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// Goes with its value.
pub(super) struct Copied {
    folder: PathBuf,
    pub(super) path: PathBuf,
}

impl Copied {
    /// With what SQLite has not yet written into the file itself.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let folder = private_folder()?;
        let copied = Self { path: folder.join("definitions.sqlite"), folder };
        for end in ["", "-wal"] {
            let with = |path: &Path| {
                let mut name = path.as_os_str().to_owned();
                name.push(end);
                PathBuf::from(name)
            };
            match fs::copy(with(path), with(&copied.path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !end.is_empty() => {}
                other => drop(other.map_err(StoreError::io("copy", path))?),
            }
        }
        Ok(copied)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A new folder that only its owner can look into.
fn private_folder() -> Result<PathBuf, StoreError> {
    let base = std::env::temp_dir();
    for nth in 0.. {
        let path = base.join(format!("warren-store-{}-{nth}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && nth < 1000 => {}
            made => return made.map(|()| path.clone()).map_err(StoreError::io("make", &path)),
        }
    }
    unreachable!("the loop ends with an error")
}
