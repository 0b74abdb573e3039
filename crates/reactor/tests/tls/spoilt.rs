//! Bytes cut, missing and changed at every place.

use proptest::prelude::*;
use warren_reactor::tls::{TlsClientOptions, TlsServerOptions};

use crate::support::{Ends, Heard, Notes, options, options_12, secured};

type Options = (TlsServerOptions, TlsClientOptions);

/// A client that asks and loses the connection when it has been answered; a server that echoes. Its handshakes are full
/// ones: a resumed one depends on those before.
fn ends((server, client): &Options) -> Ends {
    let writes = |client: &mut Notes| client.writes = b"question".to_vec();
    Ends::with(server, client, |server| server.echoes = true, writes)
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy)]
enum Fate {
    /// They come in two parts, the first of so many bytes.
    CutAt(usize),
    /// They end after so many.
    EndAt(usize),
    /// So many bytes in, a bit is turned.
    BitTurned(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Up,
    Down,
}

/// Carries bytes until none are left; gives how many went up and down. The client closes once it has its answer.
fn carry(ends: &mut Ends, direction: Direction, fate: Fate) -> (usize, usize) {
    let mut passed = (0, 0);
    loop {
        let (up, down) = (ends.client.take_output(), ends.server.take_output());
        if up.is_empty() && down.is_empty() {
            if ends.at_client.data() == b"question" && !ends.client.is_lost() {
                ends.client.transport().lose_connection();
                continue;
            }
            return passed;
        }
        for (way, bytes) in [(Direction::Up, up), (Direction::Down, down)] {
            let (end, passed) = match way {
                Direction::Up => (&mut ends.server, &mut passed.0),
                Direction::Down => (&mut ends.client, &mut passed.1),
            };
            let here = |at: usize| at.checked_sub(*passed).filter(|&at| at < bytes.len());
            let mut bytes = bytes.clone();
            match fate {
                _ if way != direction => end.feed(&bytes),
                Fate::CutAt(at) => match here(at) {
                    Some(at) => {
                        end.feed(&bytes[..at]);
                        end.feed(&bytes[at..]);
                    }
                    None => end.feed(&bytes),
                },
                Fate::EndAt(at) => match here(at) {
                    Some(at) => {
                        end.feed(&bytes[..at]);
                        end.lose();
                    }
                    None => end.feed(&bytes),
                },
                Fate::BitTurned(at) => {
                    if let Some(at) = here(at) {
                        bytes[at] ^= 1 << (at % 8);
                    }
                    end.feed(&bytes);
                }
            }
            *passed += bytes.len();
        }
    }
}

/// How many bytes go up and down when nothing happens to them.
fn lengths(options: &Options) -> (usize, usize) {
    carry(&mut ends(options), Direction::Up, Fate::CutAt(usize::MAX))
}

/// Fresh settings, so that no session is resumed: one byte more or less does not matter.
fn every_place(check: impl Fn(&Options, Direction, usize)) {
    for make in [options, options_12] {
        let (up, down) = lengths(&make());
        let step = if cfg!(debug_assertions) { 3 } else { 1 };
        // The parts where records and messages begin at each byte, the rest at every third.
        for (direction, length) in [(Direction::Up, up), (Direction::Down, down)] {
            let mut at = 0;
            while at < length {
                check(&make(), direction, at);
                at += if at < 64 || length < at + 128 { 1 } else { step };
            }
        }
    }
}

#[test]
fn bytes_may_be_cut_anywhere() {
    every_place(|options, direction, at| {
        let mut ends = ends(options);
        carry(&mut ends, direction, Fate::CutAt(at));
        assert_eq!(ends.at_client.data(), b"question", "cut at {at}");
        assert_eq!(ends.at_server.data(), b"question", "cut at {at}");
        assert_eq!(ends.at_client.events(), ["handshake", "closed here"]);
        assert_eq!(ends.at_server.events(), ["handshake", "read lost", "closed by the peer"]);
    });
}

#[test]
fn bytes_may_come_one_by_one() {
    for make in [options, options_12] {
        let mut ends = ends(&make());
        loop {
            let (up, down) = (ends.client.take_output(), ends.server.take_output());
            if up.is_empty() && down.is_empty() {
                break;
            }
            up.iter().for_each(|&byte| ends.server.feed(&[byte]));
            down.iter().for_each(|&byte| ends.client.feed(&[byte]));
        }
        assert_eq!(ends.at_client.data(), b"question");
    }
}

#[test]
fn bytes_that_end_too_early_are_an_error_wherever_they_end() {
    every_place(|options, direction, at| {
        let mut ends = ends(options);
        carry(&mut ends, direction, Fate::EndAt(at));
        let heard = if direction == Direction::Up { &ends.at_server } else { &ends.at_client };
        let last = heard.last();
        // A client that is closing does not listen for the answer.
        let closing = direction == Direction::Down && last == "closed here";
        assert!(last.starts_with("UnexpectedEof") || closing, "ended at {at}: {last}");
        assert!(b"question".starts_with(&heard.data()), "ended at {at}");
    });
}

#[test]
fn bytes_that_were_changed_never_arrive() {
    every_place(|options, direction, at| {
        let mut ends = ends(options);
        carry(&mut ends, direction, Fate::BitTurned(at));
        for heard in [&ends.at_client, &ends.at_server] {
            assert!(b"question".starts_with(&heard.data()), "changed at {at}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_harms_nobody(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 1..20)) {
        let (server, client) = options();
        let (at_server, at_client) = (Heard::default(), Heard::default());
        let mut ends =
            [secured(&server, Notes::new(&at_server)), secured(&client, Notes::new(&at_client))];
        for piece in &pieces {
            ends.iter_mut().for_each(|end| end.feed(piece));
        }
        for (end, heard) in ends.iter_mut().zip([at_server, at_client]) {
            end.lose();
            prop_assert!(heard.data().is_empty());
            prop_assert_eq!(heard.events().len(), 1);
        }
    }

    #[test]
    fn garbage_in_records_harms_nobody(
        records in prop::collection::vec((20u8..25, prop::collection::vec(any::<u8>(), 0..300)), 1..20),
        cut in 1usize..400,
    ) {
        let mut bytes = Vec::new();
        for (kind, payload) in records {
            bytes.extend([kind, 3, 3]);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend(payload);
        }
        // In the place of a handshake, and behind one.
        for shaken in [false, true] {
            let (server, client) = options();
            let mut ends = Ends::new(&server, &client);
            if shaken {
                ends.pump();
            }
            for piece in bytes.chunks(cut) {
                ends.server.feed(piece);
                ends.client.feed(piece);
            }
            ends.server.lose();
            ends.client.lose();
            prop_assert!(ends.at_server.data().is_empty() && ends.at_client.data().is_empty());
            prop_assert!(ends.at_server.last().contains(": "), "{}", ends.at_server.last());
        }
    }
}
