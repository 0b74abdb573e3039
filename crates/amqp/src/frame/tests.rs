//! The stream cut anywhere gives the same frames; hostile streams give errors.

use proptest::prelude::*;

use super::*;
use crate::method::{Method, basic, connection};

/// A frame that owns its bytes, to compare after the reader moved on.
fn owned(frame: Frame<'_>) -> (u16, u64, Vec<u8>) {
    match frame {
        Frame::Method { channel, payload } => (channel, 1, payload.to_vec()),
        Frame::Header { channel, body_size, properties, .. } => {
            (channel, body_size, properties.to_vec())
        }
        Frame::Body { channel, payload } => (channel, 3, payload.to_vec()),
        Frame::Heartbeat => (0, 8, Vec::new()),
    }
}

fn read(reader: &mut FrameReader, data: &[u8]) -> Result<Vec<(u16, u64, Vec<u8>)>, FrameError> {
    let mut frames = Vec::new();
    reader.feed(data, |frame| {
        frames.push(owned(frame));
        Ok::<_, FrameError>(())
    })?;
    Ok(frames)
}

/// A stream with all kinds of frames.
fn stream(body: &[u8], frame_max: u32) -> Vec<u8> {
    let mut out = Vec::new();
    write_method(&mut out, 1, &basic::Ack { delivery_tag: 1, multiple: false });
    write_heartbeat(&mut out);
    let publish = basic::Publish { routing_key: "key", ..Default::default() };
    write_publish(&mut out, 2, &publish, &[0, 0], body, frame_max);
    write_method(&mut out, 0, &connection::CloseOk {});
    out
}

#[test]
fn a_stream_cut_at_any_two_places_gives_the_same_frames() {
    let bytes = stream(b"some body that takes three frames of up to 16", 24);
    let whole = read(&mut FrameReader::new(4096), &bytes).unwrap();
    assert_eq!(whole.len(), 8);
    for first in 0..bytes.len() {
        for second in first..bytes.len() {
            let mut reader = FrameReader::new(4096);
            let mut frames = read(&mut reader, &bytes[..first]).unwrap();
            frames.extend(read(&mut reader, &bytes[first..second]).unwrap());
            frames.extend(read(&mut reader, &bytes[second..]).unwrap());
            assert_eq!(frames, whole, "cut at {first} and {second}");
            assert_eq!(reader.buffered(), 0);
        }
    }
}

#[test]
fn a_stream_octet_by_octet_gives_the_same_frames() {
    let bytes = stream(&[7; 300], 4096);
    let mut reader = FrameReader::new(4096);
    let mut frames = Vec::new();
    for octet in bytes.chunks(1) {
        frames.extend(read(&mut reader, octet).unwrap());
    }
    assert_eq!(frames, read(&mut FrameReader::new(4096), &bytes).unwrap());
}

#[test]
fn an_empty_body_has_a_header_and_no_body_frame() {
    let mut out = Vec::new();
    write_content(&mut out, 1, CLASS_BASIC, &[0, 0], b"", 4096);
    let frames = read(&mut FrameReader::new(4096), &out).unwrap();
    assert_eq!(frames, [(1, 0, vec![0, 0])]);
}

#[test]
fn frames_keep_to_the_limit_and_bodies_are_split() {
    let mut out = Vec::new();
    write_content(&mut out, 1, CLASS_BASIC, &[0, 0], &[1; 10_000], 4096);
    let frames = read(&mut FrameReader::new(4096), &out).unwrap();
    let sizes: Vec<_> = frames[1..].iter().map(|frame| frame.2.len()).collect();
    assert_eq!(sizes, [4088, 4088, 1824]);
}

#[test]
fn bad_frames_are_named() {
    #[track_caller]
    fn check(bytes: &[u8], want: &str, code: u16) {
        let error = read(&mut FrameReader::new(4096), bytes).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.reply_code().0), (want, code));
        // The same when it comes octet by octet.
        let mut reader = FrameReader::new(4096);
        let mut result = Ok(vec![]);
        for octet in bytes.chunks(1) {
            result = read(&mut reader, octet);
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result.unwrap_err(), error);
    }
    check(
        b"\x01\0\x01\0\0\x10\x01",
        "frame of type 1 on channel 1 announces 4097 octets of payload; the limit agreed is 4088",
        501,
    );
    check(
        b"\x03\0\x05\xff\xff\xff\xff",
        "frame of type 3 on channel 5 announces 4294967295 octets of payload; \
         the limit agreed is 4088",
        501,
    );
    check(
        b"\x01\0\x01\0\0\0\x01x\x00",
        "frame of type 1 on channel 1 ends in 0x00 and not in 0xce",
        501,
    );
    check(b"\x04\0\x01\0\0\0\x00\xce", "unknown frame type 4 on channel 1", 501);
    check(
        b"GET / HT",
        "frame of type 71 on channel 17748 announces 539959368 octets of payload; the limit agreed is 4088",
        501,
    );
    check(
        b"\x02\0\x01\0\0\0\x02\0\x3c\xce",
        "content header of 2 octets on channel 1; it takes at least 12",
        501,
    );
    check(
        b"\x08\0\x01\0\0\0\0\xce",
        "heartbeat of 0 octets on channel 1; it is empty, on channel 0",
        505,
    );
}

#[test]
fn what_cannot_be_used_is_told_by_its_first_octets() {
    let snippet = |bytes: &[u8]| match read(&mut FrameReader::new(4096), bytes).unwrap_err() {
        FrameError::BadEnd { snippet, .. } | FrameError::UnknownType { snippet, .. } => snippet,
        other => panic!("{other}"),
    };
    assert_eq!(snippet(b"\x07\0\x01\0\0\0\x03abc\xce"), b"abc");
    assert_eq!(snippet(b"\x03\0\x01\0\0\0\x03abc\x00"), b"abc");
    let mut out = Vec::new();
    write_frame(&mut out, 7, 1, &[b'x'; 100]);
    assert_eq!(snippet(&out).len(), FrameError::SNIPPET_BYTES_MAX);
    // Without a limit there is no end to wait for.
    let mut endless = FrameReader::new(0);
    assert!(matches!(read(&mut endless, b"HTTP/1.1"), Err(FrameError::UnknownType { .. })));
}

#[test]
fn payloads_up_to_frame_max_itself_pass_as_in_rabbitmq() {
    let mut out = Vec::new();
    write_frame(&mut out, FRAME_BODY, 1, &[0; 4096]);
    assert_eq!(read(&mut FrameReader::new(4096), &out).unwrap().len(), 1);
}

#[test]
fn the_limit_can_change_between_two_frames_of_one_read() {
    let mut out = Vec::new();
    let tune = connection::TuneOk { channel_max: 1, frame_max: 65536, heartbeat: 0 };
    write_method(&mut out, 0, &tune);
    write_frame(&mut out, FRAME_BODY, 1, &[0; 60_000]);
    let mut reader = FrameReader::default();
    let mut data = &out[..];
    let Some(Frame::Method { payload, .. }) = reader.next_frame(&mut data).unwrap() else {
        panic!("no method")
    };
    let Ok(Method::ConnectionTuneOk(read)) = Method::decode(payload) else { panic!("no tune-ok") };
    reader.set_frame_max(read.frame_max);
    assert!(matches!(reader.next_frame(&mut data), Ok(Some(Frame::Body { .. }))));
    assert_eq!(reader.next_frame(&mut data), Ok(None));
}

proptest! {
    #[test]
    fn garbage_never_panics_and_is_the_same_in_pieces(
        bytes in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(2), Just(3), Just(8), Just(0xCE), any::<u8>()],
            0..200,
        ),
        step in 1usize..20,
    ) {
        let whole = read(&mut FrameReader::new(4096), &bytes);
        let mut reader = FrameReader::new(4096);
        let pieces: Result<Vec<_>, _> =
            bytes.chunks(step).map(|piece| read(&mut reader, piece)).collect();
        prop_assert_eq!(pieces.map(|pieces| pieces.concat()), whole);
    }
}
