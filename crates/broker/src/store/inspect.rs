//! A data directory that no server uses, looked into: whether it is whole, and what is in it. Nothing in it is changed.
//!
//! ```text
//!   lock         held, so that no server begins meanwhile
//!   definitions  a copy of the file, for SQLite writes when it reads, and formats are brought up
//!   messages     over a folder that takes no change
//!   streams      record by record
//! ```

mod copy;
mod dump;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::{FlockOperation, flock};

use super::definitions::Definitions;
use super::frozen::Frozen;
use super::legacy;
use super::marks::Marks;
use super::recovery::{self, RecoveredPlace};
use super::segment::FORMAT_OLD_MAX;
use super::{Damage, QueueDefinition, Recovered, StoreError};
use crate::stream::{self, settings::StreamSettings};
use copy::Copied;
pub use dump::Selection;

/// See the [module](self).
pub struct Inspection {
    folder: PathBuf,
    defined: Recovered,
    /// What is wrong with the definitions.
    damage: Vec<Damage>,
    /// Queues and exchanges that have messages, by the log's numbers: virtual host and name.
    names: FxHashMap<u64, (String, String)>,
    /// Held, for the lock.
    _lock: Option<File>,
}

/// What a check has found.
#[derive(Debug, Default)]
pub struct Checked {
    /// All that is wrong.
    pub damage: Vec<Damage>,
    /// Durable queues, streams included.
    pub queues: u64,
    /// Messages in queues, each as often as it is in one.
    pub messages: u64,
    /// Messages in streams.
    pub stream_messages: u64,
    /// Octets of the message log and of streams.
    pub bytes: u64,
}

impl Checked {
    /// Whether nothing is lost.
    pub fn is_whole(&self) -> bool {
        self.damage.iter().all(Damage::is_torn)
    }
}

impl Inspection {
    /// Opens a data directory.
    ///
    /// # Errors
    /// When a server uses it, or it is none, or of a format that is newer than this program.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let metadata = folder.metadata().map_err(StoreError::io("read", folder))?;
        let path = folder.join("definitions.sqlite");
        if !metadata.is_dir() || !(path.exists() || folder.join("messages").exists()) {
            return Err(StoreError::NoDataDirectory(folder.to_owned()));
        }
        let lock = share(folder)?;
        let (mut defined, mut damage) = (Recovered::default(), Vec::new());
        if path.exists() {
            let copied = Copied::of(&path)?;
            match Definitions::open(&copied.path, &mut defined) {
                Ok(definitions) => damage.extend(definitions.faults().into_iter().map(|fault| {
                    Damage::lost(format!("{}: {fault}; what stood there is lost", path.display()))
                })),
                Err(StoreError::Format { found, known, .. }) => {
                    return Err(StoreError::Format { path, found, known });
                }
                Err(StoreError::Definitions { source, .. }) => {
                    defined = Recovered::default();
                    let text = format!("{}: {source}; no server can use it", path.display());
                    damage.push(Damage::lost(text));
                }
                Err(error) => return Err(error),
            }
        } else {
            let text = format!("{}: the file is missing; all definitions are lost", path.display());
            damage.push(Damage::lost(text));
        }
        let queues = defined.queues.iter().map(|queue| (queue.id, (&queue.vhost, &queue.name)));
        let schedules = defined.exchanges.iter().filter(|exchange| exchange.schedule != 0);
        let schedules =
            schedules.map(|exchange| (exchange.schedule, (&exchange.vhost, &exchange.name)));
        let names = queues
            .chain(schedules)
            .map(|(number, (vhost, name))| (number, (vhost.clone(), name.clone())))
            .collect();
        Ok(Self { folder: folder.to_owned(), defined, damage, names, _lock: lock })
    }

    /// Reads everything, all checksums included.
    ///
    /// # Errors
    /// When a file cannot be read, or is none of ours.
    pub fn check(&self) -> Result<Checked, StoreError> {
        let mut checked = Checked {
            damage: self.damage.clone(),
            queues: self.defined.queues.len() as u64,
            ..Checked::default()
        };
        self.check_messages(&mut checked)?;
        for (queue, settings) in self.streams() {
            let (mut messages, mut octets) = (0, 0);
            self.each_of_stream(queue, &settings, &mut checked.damage, |_, _, _, bytes| {
                messages += 1;
                octets += bytes as u64;
            })?;
            checked.stream_messages += messages;
            checked.bytes += octets;
        }
        Ok(checked)
    }

    fn check_messages(&self, checked: &mut Checked) -> Result<(), StoreError> {
        let folder = self.messages();
        if !folder.exists() {
            return Ok(());
        }
        if self.old_format()?.is_some() {
            let scan = legacy::Scan::of(&folder, &self.keepers(), &mut checked.damage)?;
            checked.messages = scan.count();
            checked.bytes += scan.bytes().map_err(StoreError::io("read", &folder))?;
            return Ok(());
        }
        let known = checked.damage.len();
        let found =
            recovery::read(&*Frozen::new(&folder, false), &self.keepers(), &mut checked.damage)?;
        checked.bytes += found.sealed.values().sum::<u64>();
        let is_whole = checked.damage[known..].iter().all(Damage::is_torn);
        let mut live = FxHashSet::default();
        found.messages.for_each(|place| {
            checked.messages += 1;
            if !is_whole {
                live.insert(place.place);
            }
        });
        if is_whole {
            return Ok(());
        }
        // What the indexes know, and the records do not say any more.
        let mut lost = BTreeMap::<&(String, String), u64>::new();
        self.each_place(true, |place| {
            if !live.contains(&place.place)
                && let Some(name) = self.names.get(&place.queue)
            {
                *lost.entry(name).or_default() += 1;
            }
        })?;
        for ((vhost, name), count) in lost {
            let text = format!("{count} messages of '{name}' in vhost '{vhost}' are lost");
            checked.damage.push(Damage::lost(text));
        }
        Ok(())
    }

    fn messages(&self) -> PathBuf {
        self.folder.join("messages")
    }

    fn keepers(&self) -> FxHashSet<u64> {
        self.names.keys().copied().collect()
    }

    /// Of the log, if it is older than the one of today.
    fn old_format(&self) -> Result<Option<u32>, StoreError> {
        let format = legacy::format(&self.messages())?;
        Ok(format.filter(|format| *format <= FORMAT_OLD_MAX))
    }

    fn each_place(
        &self,
        indexes: bool,
        take: impl FnMut(RecoveredPlace),
    ) -> Result<(), StoreError> {
        let disk = Frozen::new(&self.messages(), indexes);
        let keepers = self.keepers();
        let mut found = recovery::read(&*disk, &keepers, &mut Vec::new())?;
        let marks = Marks::read(&self.folder)?.marks(&keepers, found.next);
        found.messages.note_delivered(&marks);
        found.messages.for_each(take);
        Ok(())
    }

    fn streams(&self) -> impl Iterator<Item = (&QueueDefinition, StreamSettings)> {
        let queues = self.defined.queues.iter();
        queues.filter_map(|queue| Some((queue, stream::settings::of_definition(&queue.arguments)?)))
    }

    fn each_of_stream(
        &self,
        queue: &QueueDefinition,
        settings: &StreamSettings,
        damage: &mut Vec<Damage>,
        take: impl FnMut(&Path, &stream::record::Record<'_>, u64, usize),
    ) -> Result<(), StoreError> {
        stream::inspect::each(&self.folder.join("streams"), queue.id, settings, damage, take)
    }
}

/// Keeps servers away as long as it is held. None: no server ever was here.
fn share(folder: &Path) -> Result<Option<File>, StoreError> {
    let path = folder.join("lock");
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(folder.to_owned())),
        Err(error) => Err(StoreError::io("lock", &path)(error.into())),
    }
}
