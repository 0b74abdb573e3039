//! The log on disk, beside a plain list.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use warren_amqp::{BasicProperties, RawProperties};

use super::index::{self, Block};
use super::reader::{From, Read, Reader};
use super::record::{self, Decoded, Record, Step, walk};
use super::segment;
use super::settings::{Filter, StreamSettings};
use super::shared::Shared;
use super::writer::{Job, Writer, stream_folder};
use crate::store::Damage;

const STREAM: u64 = 7;

fn properties(value: Option<&str>) -> Vec<u8> {
    let mut properties = BasicProperties::new().with_content_type("text/plain");
    if let Some(value) = value {
        properties = properties.with_header("x-stream-filter-value", value);
    }
    let mut bytes = Vec::new();
    properties.encode(&mut bytes);
    bytes
}

/// A message of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    offset: u64,
    time_ms: u64,
    body: Vec<u8>,
    value: Option<&'static str>,
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        record::encode_with_offset(
            out,
            &Record {
                offset: self.offset,
                time_ms: self.time_ms,
                exchange: "amq.topic",
                routing_key: "a.b",
                properties: &properties(self.value),
                body: &self.body,
            },
        )
        .unwrap();
    }

    fn decode(record: &Record<'_>) -> Self {
        let value = record.filter_value().map(|value| match value {
            b"a" => "a",
            b"b" => "b",
            other => panic!("{other:?}"),
        });
        let raw = RawProperties::new(record.properties);
        let header = raw.to_properties().unwrap().header("x-stream-offset").unwrap().as_i64();
        assert_eq!(header, Some(record.offset as i64));
        assert_eq!(raw.content_type(), Some("text/plain"));
        Entry { offset: record.offset, time_ms: record.time_ms, body: record.body.to_vec(), value }
    }
}

/// A folder with one stream.
struct Disk {
    folder: tempfile::TempDir,
    settings: StreamSettings,
    writer: Writer,
    shared: Arc<Shared>,
    damage: Vec<Damage>,
}

impl Disk {
    fn new(settings: StreamSettings) -> Self {
        Self::on(tempfile::tempdir().unwrap(), settings)
    }

    fn on(folder: tempfile::TempDir, settings: StreamSettings) -> Self {
        let mut damage = Vec::new();
        let (writer, shared) =
            Writer::open(folder.path(), &[(STREAM, settings)], &mut damage).unwrap();
        let shared = shared[&STREAM].clone();
        Self { folder, settings, writer, shared, damage }
    }

    fn reopen(self) -> Self {
        drop(self.writer);
        Self::on(self.folder, self.settings)
    }

    fn path(&self) -> std::path::PathBuf {
        stream_folder(self.folder.path(), STREAM)
    }

    /// Of all segments.
    fn bytes(&self) -> u64 {
        self.shared.view().segments.iter().map(|segment| segment.bytes).sum()
    }

    fn append(&mut self, entries: &[Entry]) {
        let mut records = Vec::new();
        entries.iter().for_each(|entry| entry.encode(&mut records));
        let filtered = entries.iter().any(|entry| entry.value.is_some());
        let records = Bytes::from(records);
        self.writer.write([Job::Append { stream: STREAM, records, filtered }]).unwrap();
    }

    fn retain(&mut self, now_ms: u64) {
        self.writer.write([Job::Retain { stream: STREAM, now_ms }]).unwrap();
    }

    /// Everything from there on, as a consumer reads it.
    fn read(&self, from: From, filter: Option<Filter>) -> Vec<Entry> {
        read(&self.shared, &mut Reader::default(), from, filter)
    }

    fn all(&self) -> Vec<Entry> {
        self.read(From::Offset(0), None)
    }
}

fn read(
    shared: &Arc<Shared>,
    reader: &mut Reader,
    from: From,
    filter: Option<Filter>,
) -> Vec<Entry> {
    let until = shared.next();
    let filter = filter.map(Arc::new);
    let (mut from, mut entries) = (from, Vec::new());
    for _ in 0..100_000 {
        if from == From::Offset(until) || matches!(from, From::Offset(offset) if until < offset) {
            return entries;
        }
        let read = Read { shared: shared.clone(), from, until, filter: filter.clone() };
        let found = reader.read(&read);
        let records = &found.records;
        for index in records.find(found.from)..records.len() {
            let record = records.get(index).unwrap();
            if filter.as_ref().is_none_or(|filter| filter.matches(record.filter_value())) {
                entries.push(Entry::decode(&record));
            }
        }
        let next = if records.len() == 0 { found.from } else { records.next() };
        assert!(from != From::Offset(next), "no progress at {next}");
        from = From::Offset(next);
    }
    panic!("the end of the stream is never reached");
}

fn entries(range: std::ops::Range<u64>, body_bytes: usize) -> Vec<Entry> {
    let entry = |offset| Entry {
        offset,
        time_ms: 1000 + offset,
        body: vec![offset as u8; body_bytes],
        value: None,
    };
    range.map(entry).collect()
}

fn small(segment_bytes: u64) -> StreamSettings {
    StreamSettings { segment_bytes, ..StreamSettings::default() }
}

#[derive(Clone, Debug)]
enum Deed {
    Append(Vec<(u16, u8, u16)>),
    Reopen,
    Retain(u64),
    LoseIndexes,
    Read(u64),
    ReadTime(u64),
    ReadFiltered(bool, bool),
}

fn deed() -> impl Strategy<Value = Deed> {
    let message = (0..3000_u16, 0..4_u8, 0..50_u16);
    prop_oneof![
        6 => prop::collection::vec(message, 1..40).prop_map(Deed::Append),
        1 => Just(Deed::Reopen),
        1 => (0..4000_u64).prop_map(Deed::Retain),
        1 => Just(Deed::LoseIndexes),
        2 => any::<u64>().prop_map(Deed::Read),
        2 => (0..6000_u64).prop_map(Deed::ReadTime),
        2 => any::<(bool, bool)>().prop_map(|(value, others)| Deed::ReadFiltered(value, others)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_log_holds_what_a_list_holds(
        deeds in prop::collection::vec(deed(), 1..50),
        segment_bytes in 500..400_000_u64,
        bytes_max in prop::option::of(1000..2_000_000_u64),
        age_ms_max in prop::option::of(1..3000_u64),
    ) {
        let settings =
            StreamSettings { bytes_max, age_ms_max, ..small(segment_bytes) };
        let mut disk = Disk::new(settings);
        let mut model: Vec<Entry> = Vec::new();
        let mut reader = Reader::default();
        let mut time_ms = 1000;
        for deed in deeds {
            match deed {
                Deed::Append(messages) => {
                    let first = model.last().map_or(0, |entry| entry.offset + 1);
                    let mut new = Vec::new();
                    for (index, (size, value, pause)) in messages.into_iter().enumerate() {
                        time_ms += u64::from(pause);
                        new.push(Entry {
                            offset: first + index as u64,
                            time_ms,
                            body: vec![value; size.into()],
                            value: [None, None, Some("a"), Some("b")][usize::from(value)],
                        });
                    }
                    disk.append(&new);
                    model.extend(new);
                }
                Deed::Reopen => {
                    disk = disk.reopen();
                    prop_assert_eq!(&disk.damage, &Vec::<Damage>::new());
                    reader = Reader::default();
                }
                Deed::Retain(pause) => {
                    time_ms += pause;
                    disk.retain(time_ms);
                }
                Deed::LoseIndexes => {
                    for first in segment::list(&disk.path()).unwrap() {
                        fs::remove_file(segment::index_path(&disk.path(), first)).unwrap();
                    }
                    disk = disk.reopen();
                    reader = Reader::default();
                }
                Deed::Read(at) => {
                    let next = model.last().map_or(0, |entry| entry.offset + 1);
                    let at = at % (next + 1);
                    let first = disk.shared.first();
                    let want = model.iter().filter(|entry| first.max(at) <= entry.offset);
                    let got = read(&disk.shared, &mut reader, From::Offset(at), None);
                    prop_assert_eq!(got, want.cloned().collect::<Vec<_>>());
                }
                Deed::ReadTime(at) => {
                    let first = disk.shared.first();
                    let want = model.iter().filter(|entry| first <= entry.offset && at <= entry.time_ms);
                    let got = read(&disk.shared, &mut reader, From::Time(at), None);
                    prop_assert_eq!(got, want.cloned().collect::<Vec<_>>());
                }
                Deed::ReadFiltered(value, unfiltered) => {
                    let filter = Filter { values: vec![if value { b"a".to_vec() } else { b"b".to_vec() }], unfiltered };
                    let first = disk.shared.first();
                    let want = model.iter().filter(|entry| {
                        first <= entry.offset && filter.matches(entry.value.map(str::as_bytes))
                    });
                    let got = read(&disk.shared, &mut reader, From::Offset(0), Some(filter.clone()));
                    prop_assert_eq!(got, want.cloned().collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(disk.shared.next(), model.last().map_or(0, |entry| entry.offset + 1));
            // What is kept is a run of whole segments at the end, and no more than may be.
            let first = disk.shared.first();
            let kept = model.iter().filter(|entry| first <= entry.offset).cloned().collect::<Vec<_>>();
            prop_assert_eq!(disk.all(), kept);
            if let Some(max) = bytes_max {
                let count = segment::list(&disk.path()).unwrap().len();
                prop_assert!(count == 1 || disk.bytes() <= max + segment_bytes + 5000);
            }
        }
        if let Some(age) = age_ms_max {
            disk.retain(time_ms);
            let young = model.iter().filter(|entry| time_ms.saturating_sub(age) <= entry.time_ms);
            // Where there may be no more than so many bytes, the young go too.
            prop_assert!(bytes_max.is_some() || young.count() <= disk.all().len());
            disk.retain(time_ms + age + 1);
            prop_assert_eq!(disk.all(), vec![]);
            prop_assert_eq!(disk.shared.first(), disk.shared.next());
        }
    }

    #[test]
    fn a_torn_end_is_cut_wherever_it_was_torn(
        sizes in prop::collection::vec(0..300_usize, 1..30),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..20),
        index_lost: bool,
    ) {
        let mut disk = Disk::new(StreamSettings::default());
        let mut ends = vec![segment::HEADER_BYTES];
        let mut model = Vec::new();
        for (offset, size) in sizes.into_iter().enumerate() {
            let entry = Entry { offset: offset as u64, time_ms: 5, body: vec![1; size], value: None };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            ends.push(ends[ends.len() - 1] + bytes.len());
            model.push(entry);
        }
        disk.append(&model);
        let path = segment::data_path(&disk.path(), 0);
        let mut bytes = fs::read(&path).unwrap();
        prop_assert_eq!(bytes.len(), ends[ends.len() - 1]);
        let cut = cut.index(bytes.len() + 1);
        bytes.truncate(cut);
        if segment::HEADER_BYTES <= cut {
            bytes.extend(noise);
        }
        fs::write(&path, &bytes).unwrap();
        if index_lost {
            fs::remove_file(segment::index_path(&disk.path(), 0)).unwrap();
        }
        let mut disk = disk.reopen();
        let whole = ends.iter().skip(1).filter(|end| **end <= cut).count();
        prop_assert_eq!(disk.all(), &model[..whole]);
        // And it goes on from there.
        let more = entries(whole as u64..whole as u64 + 3, 10);
        disk.append(&more);
        let disk = disk.reopen();
        prop_assert_eq!(&disk.damage, &Vec::<Damage>::new());
        prop_assert_eq!(disk.all(), [&model[..whole], &more].concat());
    }

    #[test]
    fn any_bytes_are_walked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut steps = walk(&bytes, 0);
        for _ in &mut steps {}
        prop_assert!(steps.position() <= bytes.len());
        let _ = index::decode(&bytes, 16);
    }

    #[test]
    fn a_filter_never_hides_what_is_there(values in prop::collection::vec("[a-z]{0,8}", 1..20), bytes in 1..255_usize) {
        let mut block = Block::new(0, 0, bytes);
        for (offset, value) in values.iter().enumerate() {
            block.push(offset as u64, 1, 10, Some(value.as_bytes()));
        }
        for value in &values {
            prop_assert!(block.may_hold(&[value.clone().into_bytes()], false));
        }
        prop_assert!(!block.may_hold(&[], true));
        let mut entry = Vec::new();
        index::encode(&mut entry, &block);
        prop_assert_eq!(index::decode(&entry, bytes), Some(block));
        entry[3] ^= 1;
        prop_assert_eq!(index::decode(&entry, bytes), None);
    }
}

#[test]
fn records_come_back_as_they_were() {
    let entry = &entries(5..6, 3)[0];
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    let Decoded::Record(record, size) = record::decode(&bytes) else { panic!() };
    assert_eq!((size, Entry::decode(&record)), (bytes.len(), entry.clone()));
    assert_eq!((record.exchange, record.routing_key), ("amq.topic", "a.b"));
    let mut again = Vec::new();
    record::encode(&mut again, &record);
    assert_eq!(again, bytes);
    let broken = |at: usize| {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        record::decode(&broken) == Decoded::Damaged(bytes.len())
    };
    assert!((4..bytes.len()).all(broken));
    // An offset that has been is none of a record that follows.
    assert_eq!(walk(&bytes, 6).next(), Some(Step::Damaged(0, bytes.len())));
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_is_passed_over_and_the_rest_is_served() {
    // Several blocks in each of several segments.
    let mut disk = Disk::new(small(300_000));
    let model = entries(0..1000, 1000);
    disk.append(&model);
    let mut record = Vec::new();
    model[0].encode(&mut record);
    let at = |index: usize| segment::HEADER_BYTES + index * record.len();
    let path = segment::data_path(&disk.path(), 0);
    // In a body: one message is lost. In a size: the rest of its block, to where the index finds the next.
    flip(&path, at(10) + 500);
    flip(&path, at(100) + 2);
    let offsets =
        |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.offset).collect::<Vec<_>>();
    let got = offsets(disk.all());
    let lost: Vec<u64> = (0..1000).filter(|offset| !got.contains(offset)).collect();
    assert_eq!(lost[0], 10);
    assert_eq!(lost[1], 100);
    assert!(lost.len() < 70, "{lost:?}");
    // The same without the index, but for what follows bytes that are none.
    let disk = disk.reopen();
    assert_eq!(offsets(disk.all()), got);
    let index = segment::index_path(&disk.path(), 0);
    let size = fs::metadata(&index).unwrap().len() as usize;
    flip(&index, size - 1);
    let disk = disk.reopen();
    assert!(
        disk.damage[0].to_string().contains(&format!("bytes {} to {}", at(10), at(11))),
        "{:?}",
        disk.damage
    );
    assert!(
        disk.damage[1].to_string().contains(&format!("bytes {} to ", at(100))),
        "{:?}",
        disk.damage
    );
    assert_eq!(offsets(disk.all()), got);
    // In the last segment, damage that good records follow is no torn end.
    let last = *segment::list(&disk.path()).unwrap().last().unwrap();
    flip(&segment::data_path(&disk.path(), last), segment::HEADER_BYTES + 200);
    fs::remove_file(segment::index_path(&disk.path(), last)).unwrap();
    let disk = disk.reopen();
    assert!(disk.damage[0].to_string().contains("bytes 32 to"), "{:?}", disk.damage);
    let again: Vec<u64> = got.into_iter().filter(|offset| *offset != last).collect();
    assert_eq!(offsets(disk.all()), again);
    assert_eq!(disk.shared.next(), 1000);
}

#[test]
fn an_index_that_is_damaged_while_it_is_read_is_made_again() {
    let mut disk = Disk::new(small(300_000));
    let model = entries(0..500, 1000);
    disk.append(&model);
    for first in segment::list(&disk.path()).unwrap() {
        let path = segment::index_path(&disk.path(), first);
        if segment::HEADER_BYTES < fs::metadata(&path).unwrap().len() as usize {
            flip(&path, segment::HEADER_BYTES + 3);
        }
    }
    assert_eq!(disk.all(), model);
}

#[test]
fn what_the_disk_refused_is_written_when_it_no_longer_does() {
    let mut disk = Disk::new(small(10_000));
    let model = entries(0..100, 500);
    disk.append(&model[..10]);
    // A segment that cannot be made: its name is taken by a folder.
    let paths = (11..60).map(|offset| segment::data_path(&disk.path(), offset));
    let blocked: Vec<_> = paths.filter(|path| fs::create_dir(path).is_ok()).collect();
    let mut records = Vec::new();
    model[10..60].iter().for_each(|entry| entry.encode(&mut records));
    let records = Bytes::from(records);
    let job = Job::Append { stream: STREAM, records, filtered: false };
    disk.writer.write([job]).unwrap_err();
    blocked.iter().for_each(|path| fs::remove_dir(path).unwrap());
    disk.writer.write([]).unwrap();
    disk.append(&model[60..]);
    assert_eq!(disk.all(), model);
    assert_eq!(disk.reopen().all(), model);
}

#[test]
fn a_stream_that_is_deleted_leaves_nothing() {
    let mut disk = Disk::new(small(1000));
    disk.append(&entries(0..100, 100));
    disk.writer.write([Job::Delete { stream: STREAM }]).unwrap();
    assert!(!disk.path().exists());
    // Nor does one that nobody knows.
    let mut disk = disk.reopen();
    disk.append(&entries(0..100, 100));
    let mut damage = Vec::new();
    let (_, shared) = Writer::open(disk.folder.path(), &[], &mut damage).unwrap();
    assert!(shared.is_empty() && !disk.path().exists());
}

#[test]
fn a_reader_goes_on_where_segments_have_gone() {
    let settings = StreamSettings { bytes_max: Some(30_000), ..small(10_000) };
    let mut disk = Disk::new(settings);
    let mut reader = Reader::default();
    let model = entries(0..1000, 100);
    disk.append(&model[..50]);
    let found = read(&disk.shared, &mut reader, From::Offset(0), None);
    assert_eq!(found, &model[..50]);
    for piece in model[50..].chunks(50) {
        disk.append(piece);
    }
    let first = disk.shared.first();
    assert!(0 < first && first < 950);
    let found = read(&disk.shared, &mut reader, From::Offset(20), None);
    assert_eq!(found, &model[first as usize..]);
    reader.sweep();
    assert!(disk.bytes() <= 45_000);
}
