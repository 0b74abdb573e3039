//! Memory of messages that are done with, for those that come.
//!
//! As many messages go as come, and most are like the ones before. So a message that is done with is kept as it is, with
//! the room of its content and its key, and one of about the same size is written over it: a steady flow allocates nothing,
//! and writes where the processor has just been. Contents stay with sizes of their own, an eighth apart, for a large one
//! must not be held by a small one that waits for long.
//!
//! What is kept is bounded. What nobody has needed for a second goes by halves, so that an idle server keeps nothing.

use std::rc::Rc;

use super::Message;

/// Larger contents are given back at once: then the copy costs more than the memory.
const CONTENT_BYTES_MAX: usize = 4096;
/// Of all that is kept.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of a message without its content, and the two counts beside it.
const MESSAGE_BYTES: usize = size_of::<Message>() + 2 * size_of::<usize>();
const CLASSES: usize = class(CONTENT_BYTES_MAX) + 1;

/// Messages whose contents have about the same room.
#[derive(Default)]
struct Class {
    messages: Vec<Rc<Message>>,
    /// The fewest there were since the last [`shrink`](Spares::shrink).
    least: usize,
}

pub(crate) struct Spares {
    classes: [Class; CLASSES],
    bytes: usize,
}

impl Default for Spares {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| Class::default()), bytes: 0 }
    }
}

impl Spares {
    /// A message that nobody else has, with room for so much content and none in it. All else of it is old.
    pub(crate) fn take(&mut self, content_bytes: usize) -> Rc<Message> {
        let fits = if content_bytes <= CONTENT_BYTES_MAX { class(content_bytes) } else { 0 };
        let mut message = self.pop(fits).or_else(|| self.pop(0)).unwrap_or_default();
        if let Some(message) = Rc::get_mut(&mut message) {
            message.content.reserve(content_bytes);
        }
        message
    }

    /// Keeps a message for another, if nobody else has it.
    pub(crate) fn keep(&mut self, mut message: Rc<Message>) {
        let Some(spare) = Rc::get_mut(&mut message) else { return };
        let room = spare.content.clear(CONTENT_BYTES_MAX);
        let bytes = spare.spare_bytes();
        if self.bytes + bytes <= BYTES_MAX {
            self.bytes += bytes;
            self.classes[class(room)].messages.push(message);
        }
    }

    /// A second has passed.
    pub(crate) fn shrink(&mut self) {
        for class in &mut self.classes {
            let stay = class.messages.len() - class.least.div_ceil(2);
            self.bytes -=
                class.messages.drain(stay..).map(|message| message.spare_bytes()).sum::<usize>();
            if stay == 0 {
                class.messages = Vec::new();
            }
            class.least = stay;
        }
    }

    fn pop(&mut self, class: usize) -> Option<Rc<Message>> {
        let class = &mut self.classes[class];
        let message = class.messages.pop()?;
        class.least = class.least.min(class.messages.len());
        self.bytes -= message.spare_bytes();
        Some(message)
    }
}

impl Message {
    /// What it takes up while it is kept.
    fn spare_bytes(&self) -> usize {
        MESSAGE_BYTES + self.content.room() + self.routing_key.capacity()
    }
}

/// Where contents with so much room are kept: up to 128 octets in steps of 16, then eight steps to each doubling.
const fn class(room: usize) -> usize {
    match room {
        0 => 0,
        1..128 => 1 + room / 16,
        _ => {
            let doubling = room.ilog2();
            9 + (doubling as usize - 7) * 8 + ((room >> (doubling - 3)) & 7)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::{BYTES_MAX, CLASSES, CONTENT_BYTES_MAX, Spares, class};

    #[test]
    fn classes_are_an_eighth_apart() {
        let mut first = 1;
        for room in 1..=CONTENT_BYTES_MAX {
            if class(first) != class(room) {
                assert_eq!(class(room), class(first) + 1);
                first = room;
            }
            assert!(room - first < 16.max(room / 8), "{room} is kept with {first}");
        }
        assert_eq!(class(CONTENT_BYTES_MAX) + 1, CLASSES);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_counted_and_bounded(steps in prop::collection::vec((0..3u8, 2..6000usize), 0..300)) {
            let mut spares = Spares::default();
            let mut held = Vec::new();
            for (step, bytes) in steps {
                match step {
                    0 => {
                        let mut message = spares.take(bytes);
                        let content = &mut Rc::get_mut(&mut message).unwrap().content;
                        prop_assert!(content.is_empty());
                        content.begin(&[0, 0]);
                        content.append(&vec![7; bytes - 2], 0);
                        content.seal();
                        prop_assert_eq!(content.body(), vec![7; bytes - 2]);
                        held.push(message);
                    }
                    1 => held.drain(..held.len() / 2).for_each(|message| spares.keep(message)),
                    _ => spares.shrink(),
                }
                let kept = spares.classes.iter().flat_map(|class| &class.messages);
                let bytes: usize = kept.map(|message| message.spare_bytes()).sum();
                prop_assert_eq!(bytes, spares.bytes);
                prop_assert!(bytes <= BYTES_MAX);
            }
        }
    }

    #[test]
    fn what_others_have_is_not_kept() {
        let mut spares = Spares::default();
        let message = spares.take(16);
        spares.keep(message.clone());
        assert_eq!(spares.bytes, 0);
        spares.keep(message);
        assert_ne!(spares.bytes, 0);
    }

    #[test]
    fn an_idle_server_keeps_nothing() {
        let mut spares = Spares::default();
        let many: Vec<_> = (0..1000).map(|_| spares.take(100)).collect();
        many.into_iter().for_each(|message| spares.keep(message));
        for _ in 0..12 {
            spares.shrink();
        }
        assert_eq!(spares.bytes, 0);
    }
}
