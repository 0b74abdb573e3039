//! A stream of frames: cut anywhere, the same frames and the same error come out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_amqp::{FrameError, FrameReader};

const FRAME_MAX: u32 = 4096;

/// All frames as text, and how it ended.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Option<FrameError>) {
    let mut reader = FrameReader::new(FRAME_MAX);
    let mut frames = Vec::new();
    for piece in pieces {
        let fed = reader.feed(piece, |frame| {
            frames.push(format!("{frame:?}"));
            Ok::<(), FrameError>(())
        });
        if let Err(error) = fed {
            return (frames, Some(error));
        }
    }
    (frames, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((size, data)) = data.split_first() else { return };
    let whole = frames(std::iter::once(data));
    let pieces = frames(data.chunks(usize::from(*size) % 40 + 1));
    assert_eq!(whole, pieces);
});
