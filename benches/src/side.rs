//! One of the brokers that are compared, and how much is done on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xtask::servers::Server;

use crate::machine::ProcessGroup;
use crate::table::thousands;

/// One of the two.
#[derive(Clone, Debug)]
pub struct Side {
    /// Where it listens.
    pub url: String,
    /// Its processes.
    pub group: ProcessGroup,
    /// Where it keeps what it keeps.
    pub data: PathBuf,
    /// RabbitMQ, which some sizes are too large for, and which lacks some features.
    pub is_rabbitmq: bool,
}

impl Side {
    /// A server that runs.
    pub fn of(server: &Server) -> Self {
        Self {
            url: server.url.clone(),
            group: ProcessGroup(server.pid()),
            data: server.folder().to_owned(),
            is_rabbitmq: server.name == "rabbitmq",
        }
    }

    /// What the files of its folder take, and those that it holds open and that have no name any more.
    pub(crate) fn disk_bytes(&self) -> f64 {
        let mut files = BTreeMap::new();
        walk(&self.data, &mut files);
        self.group.open_files(|metadata| {
            if metadata.is_file() && metadata.nlink() == 0 {
                files.insert((metadata.dev(), metadata.ino()), metadata.blocks());
            }
        });
        files.values().sum::<u64>() as f64 * 512.0
    }
}

fn walk(folder: &Path, files: &mut BTreeMap<(u64, u64), u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), files);
        } else {
            files.insert((metadata.dev(), metadata.ino()), metadata.blocks());
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How long one rate is measured.
    pub time: Duration,
    /// Sizes are divided by it.
    pub divisor: usize,
}

impl Effort {
    /// Just enough to see that all works.
    pub const QUICK: Self = Self { time: Duration::from_millis(50), divisor: 1000 };
}

/// Sizes of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) warren: usize,
    pub(crate) rabbitmq: usize,
}

impl Sizes {
    pub(crate) const fn same(size: usize) -> Self {
        Self { warren: size, rabbitmq: size }
    }

    pub(crate) fn of(self, side: &Side, effort: Effort) -> usize {
        let size = if side.is_rabbitmq { self.rabbitmq } else { self.warren };
        (size / effort.divisor).max(1)
    }

    /// For a title: `10,000 queues (RabbitMQ: 1,000)`.
    pub(crate) fn told(self, what: &str, effort: Effort) -> String {
        let shown = |size: usize| thousands((size / effort.divisor).max(1) as f64);
        match self.warren == self.rabbitmq {
            true => format!("{} {what}", shown(self.warren)),
            false => format!("{} {what} (RabbitMQ: {})", shown(self.warren), shown(self.rabbitmq)),
        }
    }
}
