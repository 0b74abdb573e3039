//! Runs that meet a protocol's input, or its connection, cut in every place.

use std::fmt::Debug;
use std::thread;

use super::{Loss, Pump, Side};

/// The longest input of which every pair of cuts is tried.
const PAIRS_BYTES_MAX: usize = 64;

/// Calls `run` with `bytes` whole, then cut in every place (short ones in every two places, too) and then byte for byte,
/// and asserts that what comes of it is always the same. The pieces are what a connection would bring one after the other,
/// none of them empty.
///
/// ```
/// use warren_reactor::testing::{TestConnection, cut_everywhere};
/// # use warren_reactor::{Protocol, Reason, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn connection_made(&mut self, _transport: &Transport) {}
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
/// #         transport.write(data);
/// #     }
/// #     fn connection_lost(&mut self, _reason: &Reason) {}
/// # }
///
/// let output = cut_everywhere(b"some bytes", |pieces| {
///     let mut connection = TestConnection::new(Box::new(Echo));
///     for piece in pieces {
///         connection.feed(piece);
///     }
///     connection.take_output()
/// });
/// assert_eq!(output, b"some bytes");
/// ```
///
/// # Panics
/// When two runs differ; when `run` does. The pieces are printed then.
#[track_caller]
pub fn cut_everywhere<T: PartialEq + Debug>(bytes: &[u8], mut run: impl FnMut(&[&[u8]]) -> T) -> T {
    let whole = if bytes.is_empty() { run(&[]) } else { run_told(&mut run, &[bytes]) };
    let mut check = |pieces: &[&[u8]]| {
        let outcome = run_told(&mut run, pieces);
        assert!(
            outcome == whole,
            "cut into {}\n   it gives {outcome:?}\n whole it gives {whole:?}",
            shown(pieces)
        );
    };
    for cut in 1..bytes.len() {
        let (first, rest) = bytes.split_at(cut);
        check(&[first, rest]);
        if bytes.len() <= PAIRS_BYTES_MAX {
            for second in 1..rest.len() {
                let (second, third) = rest.split_at(second);
                check(&[first, second, third]);
            }
        }
    }
    if !bytes.is_empty() {
        check(&bytes.chunks(1).collect::<Vec<_>>());
    }
    whole
}

fn run_told<T>(run: &mut impl FnMut(&[&[u8]]) -> T, pieces: &[&[u8]]) -> T {
    let told = TellOnPanic(|| format!("it was cut into {}", shown(pieces)));
    let outcome = run(pieces);
    drop(told);
    outcome
}

fn shown(pieces: &[&[u8]]) -> String {
    let pieces = pieces.iter().map(|piece| format!("\"{}\"", piece.escape_ascii()));
    pieces.collect::<Vec<_>>().join(" | ")
}

/// Where and how [`lose_everywhere`] has lost a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The direction: who sent.
    pub from: Side,
    /// How many bytes of it were received before.
    pub after: u64,
    /// How.
    pub loss: Loss,
}

/// Loses the connection of a conversation in every place: `start` joins two protocols anew each time, with what
/// `check` needs to look at afterwards. The first run is not disturbed and shows how many bytes there are in each direction;
/// each of the others is lost after one of them more, in each of the ways of [`Loss`], and then `check` is called.
///
/// Both protocols must have been told of a [`Loss::Close`] and a [`Loss::Reset`]; of a [`Loss::HalfClose`] `check` may know more.
/// How many runs there were is returned.
///
/// ```
/// use warren_reactor::testing::{connect, lose_everywhere};
/// # use warren_reactor::{Protocol, Reason, Transport};
/// # struct Talker(&'static [u8]);
/// # impl Protocol for Talker {
/// #     fn connection_made(&mut self, transport: &Transport) {
/// #         transport.write(self.0);
/// #     }
/// #     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
/// #     fn connection_lost(&mut self, _reason: &Reason) {}
/// # }
///
/// let runs = lose_everywhere(
///     || (connect(Box::new(Talker(b"hello")), Box::new(Talker(b"hi"))), ()),
///     |lost, pump, ()| assert!(pump.passed(lost.from) <= lost.after),
/// );
/// assert_eq!(runs, 3 * (6 + 3));
/// ```
///
/// # Panics
/// When one of the protocols does not learn of the loss; when `check` panics. The place is printed then.
pub fn lose_everywhere<T>(
    mut start: impl FnMut() -> (Pump, T),
    mut check: impl FnMut(Lost, &Pump, T),
) -> usize {
    let passed = {
        let (pump, _) = start();
        pump.flush();
        [Side::Server, Side::Client].map(|side| (side, pump.passed(side)))
    };
    let mut runs = 0;
    for (from, bytes) in passed {
        for (after, loss) in (0..=bytes).flat_map(|n| Loss::ALL.map(|loss| (n, loss))) {
            let lost = Lost { from, after, loss };
            let (pump, state) = start();
            let log = TellOnPanic(|| format!("it was {lost:?}; then:\n{}", pump.log().join("\n")));
            pump.lose_after(from, after, loss).flush();
            if loss != Loss::HalfClose {
                assert!(pump.is_over(), "a protocol has not learned that the connection was lost");
            }
            check(lost, &pump, state);
            drop(log);
            runs += 1;
        }
    }
    runs
}

/// Says where it was, when that ends by a panic.
struct TellOnPanic<F: Fn() -> String>(F);

impl<F: Fn() -> String> Drop for TellOnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", (self.0)());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::cut_everywhere;

    #[test]
    fn every_cut_is_tried_and_no_piece_is_empty() {
        let mut seen = Vec::new();
        cut_everywhere(b"abcd", |pieces| {
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
            seen.push(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>());
            pieces.concat()
        });
        let all: [&[usize]; 8] =
            [&[4], &[1, 3], &[1, 1, 2], &[1, 2, 1], &[2, 2], &[2, 1, 1], &[3, 1], &[1, 1, 1, 1]];
        assert_eq!(seen, all);
        cut_everywhere(b"", |pieces| assert!(pieces.is_empty()));
    }

    #[test]
    fn long_inputs_are_cut_in_one_place_at_a_time() {
        let mut runs = 0;
        cut_everywhere(&[0; 100], |_| runs += 1);
        assert_eq!(runs, 1 + 99 + 1);
    }

    #[test]
    fn a_difference_names_the_cut() {
        let failed =
            catch_unwind(|| cut_everywhere(b"a\r\nb", |pieces| pieces[0].contains(&b'\n')));
        let text = *failed.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("cut into \"a\" | \"\\r\\nb\""), "{text}");
    }
}
