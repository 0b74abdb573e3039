//! The disk of a machine: what was synced stays, the rest is up to chance.

mod content;
mod tree;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::Random;
use super::node::{Machine, Process};
use super::trace::{Step, digest};
use super::world::Core;
use crate::driver::{Answer, Completion, Data, FileHandle, FileOp, Open, Reply};
use content::Survival;
use tree::Tree;

/// How long what needs the system's memory only takes.
const MEMORY: RangeInclusive<Duration> = Duration::from_micros(2)..=Duration::from_micros(100);

/// The disk of a [`Node`](super::Node). It outlives the node's programs.
///
/// - What is written is in the system's memory, where everybody sees it, until `sync_data`, `sync_all` or chance bring
///   it to the disk; at a [crash](super::Node::crash) the rest is lost page by page of 4 KiB, or torn at a
///   multiple of 512 bytes, and a file that grew may be of any length between.
/// - A name that was created, renamed or removed is on the disk when [`sync_dir`](crate::fs::sync_dir) has returned
///   for its directory.
/// - After a sync that has failed, the next one succeeds, and what the first has lost stays lost.
///
/// Programs see a file system with the directories `/` and `/tmp`. There are no links and no owners.
#[derive(Clone)]
pub struct Disk {
    pub(super) core: Rc<Core>,
    pub(super) machine: Rc<Machine>,
}

impl Disk {
    /// How long a read or a sync is under way. 0.2 to 8 ms at first.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn latency(&self, range: RangeInclusive<Duration>) -> &Self {
        assert!(!range.is_empty(), "an empty range has no time");
        self.set(|faults| faults.latency = range)
    }

    /// How many of the reads fail (`EIO`): from 0 to 1.
    pub fn failing_reads(&self, probability: f64) -> &Self {
        self.set(|faults| faults.reads = probability)
    }

    /// How many of the writes, and changes of names, fail (`EIO`): from 0 to 1.
    pub fn failing_writes(&self, probability: f64) -> &Self {
        self.set(|faults| faults.writes = probability)
    }

    /// How many of the syncs fail (`EIO`): from 0 to 1.
    pub fn failing_syncs(&self, probability: f64) -> &Self {
        self.set(|faults| faults.syncs = probability)
    }

    /// How many of the reads give a bit that is wrong: from 0 to 1.
    pub fn flipping_reads(&self, probability: f64) -> &Self {
        self.set(|faults| faults.flips = probability)
    }

    /// The bytes that fit on the disk. Beyond, writes fail with `StorageFull`. Without an end at first.
    pub fn capacity(&self, bytes: u64) -> &Self {
        self.set(|faults| faults.capacity = bytes)
    }

    /// Turns one bit of a file, for good.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn flip_bit(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.core.note(self.machine.number, Step::Fault, 6, 0);
        let mut tree = self.machine.disk.tree.borrow_mut();
        let inode = tree.find(path.as_ref())?;
        tree.content(inode)?.flip(&self.core.random);
        Ok(())
    }

    /// What a program on the node would read now; takes no time.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut tree = self.machine.disk.tree.borrow_mut();
        let inode = tree.find(path.as_ref())?;
        let mut bytes = Vec::new();
        tree.content(inode)?.read(0, usize::MAX, &mut bytes);
        Ok(bytes)
    }

    fn set(&self, change: impl FnOnce(&mut Faults)) -> &Self {
        change(&mut self.machine.disk.faults.borrow_mut());
        self
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("node", &self.machine.name)
            .field("faults", &self.machine.disk.faults.borrow())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Faults {
    latency: RangeInclusive<Duration>,
    reads: f64,
    writes: f64,
    syncs: f64,
    flips: f64,
    capacity: u64,
}

/// What a machine keeps.
pub(super) struct Storage {
    tree: RefCell<Tree>,
    faults: RefCell<Faults>,
}

/// What a program has of a file that it has opened.
struct OpenFile {
    inode: u64,
    how: Open,
}

impl Storage {
    pub(super) fn new() -> Self {
        let faults = Faults {
            latency: Duration::from_micros(200)..=Duration::from_millis(8),
            reads: 0.0,
            writes: 0.0,
            syncs: 0.0,
            flips: 0.0,
            capacity: u64::MAX,
        };
        Self { tree: RefCell::new(Tree::new()), faults: RefCell::new(faults) }
    }

    /// The power is gone.
    pub(super) fn crash(&self, random: &Random) {
        let survival = match random.below(6) {
            0 => Survival::Everything,
            1 => Survival::Nothing,
            _ => Survival::Some,
        };
        self.tree.borrow_mut().crash(survival, random);
    }

    /// Begins an operation; it takes effect when it ends. A program that dies before that has not done it.
    pub(super) fn begin(
        core: &Rc<Core>,
        machine: Rc<Machine>,
        process: Rc<Process>,
        op: FileOp,
        done: Completion,
    ) {
        let latency = match op {
            FileOp::Read { .. } | FileOp::SyncData { .. } | FileOp::SyncAll { .. } => {
                machine.disk.faults.borrow().latency.clone()
            }
            FileOp::SyncDir { .. } => machine.disk.faults.borrow().latency.clone(),
            _ => MEMORY,
        };
        core.after(core.random.duration(latency), move |core| {
            if process.alive.get() {
                let name = op.name();
                let answer = machine.disk.perform(core, op);
                let told = match &answer.result {
                    Ok(Reply::Count(count)) => *count as u64,
                    Ok(_) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(-1) as u64,
                };
                core.note(machine.number, Step::File, digest(name.as_bytes()), told);
                done(answer);
            }
        });
    }

    fn perform(&self, core: &Core, op: FileOp) -> Answer {
        match op {
            FileOp::Read { file, mut buffer, offset } => {
                let result = self.read(core, &file, &mut buffer, offset);
                Answer { result, buffer: Some(Data::Owned(buffer)) }
            }
            FileOp::Write { file, data, from, offset } => {
                let rest = data.as_slice().get(from..).unwrap_or_default();
                let result = self.write(core, &file, rest, offset);
                Answer { result, buffer: Some(data) }
            }
            other => Answer { result: self.perform_other(core, other), buffer: None },
        }
    }

    fn read(
        &self,
        core: &Core,
        file: &FileHandle,
        buffer: &mut Vec<u8>,
        offset: Option<u64>,
    ) -> io::Result<Reply> {
        let file = open_file(file)?;
        let faults = self.faults.borrow();
        if !file.how.read {
            return Err(Errno::BADF.into());
        }
        if core.random.chance(faults.reads) {
            return Err(Errno::IO.into());
        }
        let mut room = buffer.capacity() - buffer.len();
        if core.random.chance(0.02) {
            room = room.min(1 + core.random.index(room.max(1)));
        }
        let before = buffer.len();
        let offset = offset.ok_or(Errno::SPIPE)?;
        self.tree.borrow_mut().content(file.inode)?.read(offset, room, buffer);
        let read = &mut buffer[before..];
        if !read.is_empty() && core.random.chance(faults.flips) {
            read[core.random.index(read.len())] ^= 1 << core.random.below(8);
        }
        Ok(Reply::Count(read.len()))
    }

    fn write(
        &self,
        core: &Core,
        file: &FileHandle,
        data: &[u8],
        offset: Option<u64>,
    ) -> io::Result<Reply> {
        let file = open_file(file)?;
        if !(file.how.write || file.how.append) {
            return Err(Errno::BADF.into());
        }
        self.may_write(core)?;
        let mut tree = self.tree.borrow_mut();
        let mut count = data.len();
        if count > 1 && core.random.chance(0.02) {
            count = 1 + core.random.index(count);
        }
        // A page more than the bytes themselves may need.
        let room = self.faults.borrow().capacity.saturating_sub(tree.occupied());
        if room < (count + content::PAGE) as u64 {
            return Err(Errno::NOSPC.into());
        }
        let content = tree.content(file.inode)?;
        let offset = if file.how.append { content.len() } else { offset.ok_or(Errno::SPIPE)? };
        content.write(offset, &data[..count]);
        let synced = rustix::fs::OFlags::DSYNC.bits() as i32;
        if file.how.custom_flags & synced == synced {
            content.sync();
        } else if core.random.chance(0.1) {
            content.write_back(&core.random);
        }
        tree.touch(file.inode, core.system_time());
        Ok(Reply::Count(count))
    }

    fn may_write(&self, core: &Core) -> Result<(), Errno> {
        if core.random.chance(self.faults.borrow().writes) { Err(Errno::IO) } else { Ok(()) }
    }

    fn perform_other(&self, core: &Core, op: FileOp) -> io::Result<Reply> {
        let mut tree = self.tree.borrow_mut();
        let now = core.system_time();
        match op {
            FileOp::Read { .. } | FileOp::Write { .. } => unreachable!("they own a buffer"),
            FileOp::Open { path, how } => return self.open(core, &mut tree, &path, how),
            FileOp::SyncData { file } | FileOp::SyncAll { file } => {
                let content = tree.content(open_file(&file)?.inode)?;
                if core.random.chance(self.faults.borrow().syncs) {
                    content.fail_sync(&core.random);
                    return Err(Errno::IO.into());
                }
                content.sync();
            }
            FileOp::SetLen { file, len } => {
                self.may_write(core)?;
                let inode = open_file(&file)?.inode;
                tree.content(inode)?.set_len(len);
                tree.touch(inode, now);
            }
            FileOp::Allocate { file, offset, len } => {
                self.may_write(core)?;
                let room = self.faults.borrow().capacity.saturating_sub(tree.occupied());
                if room < len {
                    return Err(Errno::NOSPC.into());
                }
                tree.content(open_file(&file)?.inode)?.allocate(offset, len);
            }
            FileOp::FileMetadata { file } => {
                return Ok(Reply::Metadata(tree.metadata(open_file(&file)?.inode)?));
            }
            FileOp::Metadata { path, .. } => {
                return Ok(Reply::Metadata(tree.metadata(tree.find(&path)?)?));
            }
            FileOp::ReadDir { path } => {
                let mut entries = tree.entries(&path)?;
                core.random.shuffle(&mut entries);
                return Ok(Reply::Entries(entries));
            }
            FileOp::SyncDir { path } => {
                if core.random.chance(self.faults.borrow().syncs) {
                    return Err(Errno::IO.into());
                }
                tree.sync_dir(&path)?;
            }
            FileOp::Rename { from, to } => {
                self.may_write(core)?;
                tree.rename(&from, &to)?;
            }
            FileOp::RemoveFile { path } => {
                self.may_write(core)?;
                tree.remove_file(&path)?;
            }
            FileOp::CreateDir { path } => {
                self.may_write(core)?;
                tree.create_dir(&path, now)?;
            }
            FileOp::CreateDirAll { path } => {
                self.may_write(core)?;
                tree.create_dir_all(&path, now)?;
            }
            FileOp::RemoveDir { path } => {
                self.may_write(core)?;
                tree.remove_dir(&path)?;
            }
            FileOp::RemoveDirAll { path } => {
                self.may_write(core)?;
                tree.remove_dir_all(&path)?;
            }
        }
        Ok(Reply::Done)
    }

    fn open(&self, core: &Core, tree: &mut Tree, path: &Path, how: Open) -> io::Result<Reply> {
        let writes = how.write || how.append;
        let inode = if how.create || how.create_new {
            let (inode, made) = tree.create(path, how.mode & 0o777, core.system_time())?;
            if how.create_new && !made {
                return Err(Errno::EXIST.into());
            }
            inode
        } else {
            tree.find(path)?
        };
        // A directory can be opened to be read, as everywhere, and then nothing is to be read there.
        if writes || how.truncate {
            tree.content(inode)?;
        }
        if how.truncate {
            self.may_write(core)?;
            tree.content(inode)?.set_len(0);
        }
        Ok(Reply::Opened(FileHandle::Simulated(Arc::new(OpenFile { inode, how }))))
    }
}

fn open_file(handle: &FileHandle) -> io::Result<&OpenFile> {
    match handle {
        FileHandle::Simulated(file) => file.downcast_ref().ok_or_else(|| Errno::BADF.into()),
        FileHandle::Kernel(_) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a simulation has no descriptors of the kernel",
        )),
    }
}

impl FileOp {
    /// For the trace.
    fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::SyncData { .. } => "sync data",
            Self::SyncAll { .. } => "sync all",
            Self::SetLen { .. } => "set len",
            Self::Allocate { .. } => "allocate",
            Self::FileMetadata { .. } | Self::Metadata { .. } => "metadata",
            Self::Rename { .. } => "rename",
            Self::RemoveFile { .. } => "remove file",
            Self::CreateDir { .. } | Self::CreateDirAll { .. } => "create dir",
            Self::RemoveDir { .. } | Self::RemoveDirAll { .. } => "remove dir",
            Self::ReadDir { .. } => "read dir",
            Self::SyncDir { .. } => "sync dir",
        }
    }
}
