//! What lies whole is not copied, and any stream may be cut anywhere.

use super::*;
use crate::lines::*;
use crate::strings::*;

/// Notes where what it is told lies.
struct Places(Rc<RefCell<Vec<std::ops::Range<*const u8>>>>);

impl LineProtocol for Places {
    fn line_received(&mut self, _transport: &LineTransport, line: &[u8]) {
        self.0.borrow_mut().push(line.as_ptr_range());
    }
}

impl StringProtocol for Places {
    fn string_received(&mut self, _transport: &StringTransport, string: &[u8]) {
        self.0.borrow_mut().push(string.as_ptr_range());
    }
}

#[test]
fn a_frame_that_came_whole_is_not_copied() {
    let places = Rc::<RefCell<Vec<_>>>::default();
    let tell = || Places(places.clone());
    let cases: [(Box<dyn Protocol>, &[u8]); 3] = [
        (Box::new(LineReceiver::new(tell())), b"xx\r\nyyy\r\n"),
        (Box::new(NetstringReceiver::new(tell())), b"2:xx,3:yyy,"),
        (Box::new(Int16StringReceiver::new(tell())), b"\0\x02xx\0\x03yyy"),
    ];
    for (protocol, stream) in cases {
        let mut connection = TestConnection::new(protocol);
        connection.feed(stream);
        let whole = stream.as_ptr_range();
        assert_eq!(places.borrow().len(), 2);
        for place in places.take() {
            assert!(
                whole.contains(&place.start) && whole.contains(&place.end)
                    || place.end == whole.end
            );
        }
    }
}

/// Cuts `stream` as `cuts` say, over and over.
fn pieces<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut pieces = Vec::new();
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4usize, 1..300usize], 1..20)
}

proptest! {
    #[test]
    fn strings_come_as_they_were_sent(
        strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..30),
        cuts in cuts(),
    ) {
        let mut told: Vec<String> =
            strings.iter().map(|string| format!("string {}", string.escape_ascii())).collect();
        told.push(BY_PEER.into());
        // The words that `Strings` obeys are too unlikely to come up.
        let mut encoded = [const { Vec::new() }; 4];
        for string in &strings {
            let length = string.len() as u32;
            encoded[0].extend(format!("{length}:").into_bytes());
            encoded[0].extend(string);
            encoded[0].push(b',');
            for (stream, bytes) in encoded[1..].iter_mut().zip([1, 2, 4]) {
                stream.extend(&length.to_be_bytes()[4 - bytes..]);
                stream.extend(string);
            }
        }
        let makers: [&dyn Fn(Log) -> Box<dyn Protocol>; 4] = [
            &|log| Box::new(NetstringReceiver::new(Strings(log))),
            &|log| Box::new(Int8StringReceiver::new(Strings(log))),
            &|log| Box::new(Int16StringReceiver::new(Strings(log))),
            &|log| Box::new(Int32StringReceiver::new(Strings(log))),
        ];
        for (make, stream) in makers.iter().zip(&encoded) {
            prop_assert_eq!(&feed(make, pieces(stream, &cuts)).0, &told);
        }
    }

    #[test]
    fn lines_are_what_splitting_gives(
        stream in prop::collection::vec(prop::sample::select(b"ab\r\n;".to_vec()), 0..400),
        delimiter in prop::sample::select(vec![&b"\r\n"[..], b"\n", b";", b"a", b"aba", b"\r\n\r\n"]),
        cuts in cuts(),
    ) {
        let make = |log| {
            let receiver = LineReceiver::new(Lines { log, raw_bytes: 0 }).max_length(1000);
            Box::new(receiver.delimiter(delimiter)) as Box<dyn Protocol>
        };
        let text = String::from_utf8(stream.clone()).unwrap();
        let mut want: Vec<String> = text
            .split(std::str::from_utf8(delimiter).unwrap())
            .map(|line| format!("line {}", line.as_bytes().escape_ascii()))
            .collect();
        want.pop();
        prop_assert_eq!(feed(&make, pieces(&stream, &cuts)).0, want);
    }

    #[test]
    fn whatever_comes_is_the_same_however_it_is_cut(
        stream in prop::collection::vec(
            prop_oneof![
                any::<u8>(),
                prop::sample::select(b"\0\0\0\x01\x02:,,0123456789\r\n".to_vec()),
            ],
            0..300,
        ),
        cuts in cuts(),
    ) {
        let makers: [&dyn Fn(Log) -> Box<dyn Protocol>; 5] =
            [&lines, &int8, &int16, &int32, &netstrings];
        for make in makers {
            prop_assert_eq!(feed(make, pieces(&stream, &cuts)), feed(make, [&stream[..]]));
        }
    }
}
