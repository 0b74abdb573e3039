//! Where a consumer of a stream stands.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::chunk::Chunk;
use super::reader::From;
use super::settings::Filter;
use crate::queue::ConsumerKey;

pub(crate) struct Cursor {
    /// What comes next.
    pub(super) from: From,
    pub(crate) filter: Option<Arc<Filter>>,
    /// Where that is found, and which record of it is next.
    chunk: Option<(Rc<Chunk>, usize)>,
    /// On the list of those that may be able to go on.
    pub(super) queued: bool,
    /// On the list of those that have had everything.
    pub(super) at_end: bool,
    /// Something is being read for it.
    pub(super) reading: bool,
}

impl Cursor {
    pub(crate) fn new(from: From, filter: Option<Arc<Filter>>) -> Self {
        Self { from, filter, chunk: None, queued: false, at_end: false, reading: false }
    }

    pub(super) fn queue(&mut self, consumer: ConsumerKey, ready: &mut VecDeque<ConsumerKey>) {
        if !std::mem::replace(&mut self.queued, true) {
            ready.push_back(consumer);
        }
    }

    /// The offset that comes next; `None`: it has to be looked for, by time.
    pub(crate) fn offset(&self) -> Option<u64> {
        match self.from {
            From::Offset(offset) => Some(offset),
            From::Time(_) => None,
        }
    }

    /// Goes on from an offset, unless it is further already.
    pub(super) fn go_on(&mut self, from: u64, chunk: Option<Rc<Chunk>>) {
        let from = self.offset().map_or(from, |offset| offset.max(from));
        self.from = From::Offset(from);
        self.chunk = None;
        if let Some(chunk) = chunk {
            self.enter(chunk);
        }
    }

    /// Goes on in a chunk.
    pub(crate) fn enter(&mut self, chunk: Rc<Chunk>) {
        let at = self.offset().map_or(0, |offset| chunk.records.find(offset));
        self.chunk = Some((chunk, at));
    }

    /// The chunk it stands in and the number of the record that is next. At the end of a chunk it leaves it.
    pub(crate) fn current(&mut self) -> Option<(Rc<Chunk>, usize)> {
        let (chunk, at) = self.chunk.as_ref()?;
        if *at < chunk.records.len() {
            return Some((chunk.clone(), *at));
        }
        let next = chunk.records.next();
        let from = self.offset().map_or(next, |offset| offset.max(next));
        self.from = From::Offset(from);
        self.chunk = None;
        None
    }

    /// The record is done with.
    pub(crate) fn advance(&mut self, offset: u64) {
        self.from = From::Offset(offset + 1);
        if let Some((_, at)) = &mut self.chunk {
            *at += 1;
        }
    }

    /// Its chunk can be found again.
    pub(crate) fn let_go(&mut self) {
        self.chunk = None;
    }
}
