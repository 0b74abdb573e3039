//! The store over random steps, against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::Definition;
use super::{by_queue, contents, held, open, queue};

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<u64>, usize),
    Ack(usize, usize),
    DropQueue(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let queues = prop::sample::subsequence(vec![1u64, 2, 3], 1..=3);
    prop_oneof![
        6 => (queues, 0..5000usize).prop_map(|(queues, size)| Step::Publish(queues, size)),
        4 => (0..3usize, any::<usize>()).prop_map(|(queue, message)| Step::Ack(queue, message)),
        1 => (0..3usize).prop_map(Step::DropQueue),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_store_holds_what_a_map_holds(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(folder.path());
        let mut ids = [1u64, 2, 3];
        let mut last_queue = 3;
        for id in ids {
            store.define(queue(id));
        }
        // Ids and places.
        let mut model = BTreeMap::<u64, Vec<(u64, u64)>>::new();
        let ids_of = |model: &BTreeMap<u64, Vec<(u64, u64)>>| {
            let queues = model.iter().filter(|(_, messages)| !messages.is_empty());
            queues
                .map(|(queue, messages)| (*queue, messages.iter().map(|(id, _)| *id).collect()))
                .collect::<BTreeMap<u64, Vec<u64>>>()
        };
        let mut last = 0;
        for step in steps {
            match step {
                Step::Publish(chosen, size) => {
                    last += 1;
                    let queues: Vec<u64> = chosen.iter().map(|n| ids[*n as usize - 1]).collect();
                    let first = store.put(last, &vec![b'x'; size], &queues);
                    for (place, queue) in (first..).zip(queues) {
                        model.entry(queue).or_default().push((last, place));
                    }
                }
                Step::Ack(queue, n) => {
                    let queue = ids[queue];
                    if let Some(messages) = model.get_mut(&queue)
                        && !messages.is_empty()
                    {
                        let n = n % messages.len();
                        store.ack(messages.remove(n).1);
                    }
                }
                Step::DropQueue(n) => {
                    store.define(Definition::DeleteQueue(ids[n]));
                    for (_, place) in model.remove(&ids[n]).unwrap_or_default() {
                        store.ack(place);
                    }
                    last_queue += 1;
                    ids[n] = last_queue;
                    store.define(queue(last_queue));
                }
                Step::Reopen => {
                    store.close();
                    let (again, mut recovered) = open(folder.path());
                    store = again;
                    let found = by_queue(&held(&store, &mut recovered));
                    prop_assert_eq!(found, ids_of(&model));
                }
            }
            store.commit();
        }
        store.close();
        prop_assert_eq!(contents(folder.path()), ids_of(&model));
    }
}
