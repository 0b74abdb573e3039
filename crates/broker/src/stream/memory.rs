//! A stream without a data directory: segments of chunks in memory, which go as those on disk do.

use std::collections::VecDeque;
use std::rc::Rc;

use super::chunk::Chunk;
use super::segment::{Summary, count_surplus};
use super::settings::StreamSettings;

#[derive(Default)]
pub(super) struct Memory {
    /// Oldest first.
    segments: VecDeque<Segment>,
    next: u64,
}

struct Segment {
    summary: Summary,
    chunks: Vec<Rc<Chunk>>,
}

impl Memory {
    pub(super) fn push(&mut self, chunk: Rc<Chunk>, last_ms: u64, settings: &StreamSettings) {
        let full = |segment: &Segment| settings.segment_bytes <= segment.summary.bytes;
        let rolled = self.segments.back().is_none_or(full);
        if rolled {
            let summary = Summary { bytes: 0, ..Summary::new(chunk.records.first()) };
            self.segments.push_back(Segment { summary, chunks: Vec::new() });
        }
        self.next = chunk.records.next();
        if let Some(last) = self.segments.back_mut() {
            last.summary.bytes += chunk.records.bytes().len() as u64;
            last.summary.last_ms = last_ms;
            last.summary.next = self.next;
            last.chunks.push(chunk);
        }
        if rolled {
            self.retain(last_ms, settings);
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.summary.first)
    }

    pub(super) fn oldest_ms(&self) -> u64 {
        self.segments.front().map_or(0, |segment| segment.summary.last_ms)
    }

    pub(super) fn retain(&mut self, now_ms: u64, settings: &StreamSettings) {
        let born_ms_min = settings.age_ms_max.map_or(0, |age| now_ms.saturating_sub(age));
        let segments = self.segments.iter().map(|segment| segment.summary);
        let surplus = count_surplus(segments, settings.bytes_max, born_ms_min);
        self.segments.drain(..surplus);
        if self.segments.back().is_some_and(|last| last.summary.last_ms < born_ms_min) {
            self.segments.clear();
        }
    }

    /// The chunk with the first message from this offset on.
    pub(super) fn find(&self, offset: u64) -> Option<Rc<Chunk>> {
        let at = self.segments.partition_point(|segment| segment.summary.next <= offset);
        let segment = self.segments.get(at)?;
        let at = segment.chunks.partition_point(|chunk| chunk.records.next() <= offset);
        segment.chunks.get(at).cloned()
    }

    /// The first message that came at this time or later.
    pub(super) fn find_time(&self, time_ms: u64) -> Option<u64> {
        let at = self.segments.partition_point(|segment| segment.summary.last_ms < time_ms);
        let segment = self.segments.get(at)?;
        let last_ms = |chunk: &Rc<Chunk>| {
            let last = chunk.records.len().checked_sub(1)?;
            Some(chunk.records.get(last)?.time_ms)
        };
        let at = segment.chunks.partition_point(|chunk| last_ms(chunk) < Some(time_ms));
        let records = &segment.chunks.get(at)?.records;
        Some(records.get(records.find_time(time_ms))?.offset)
    }
}
