//! A list of destinations, each once, however many bindings lead there.

use rustc_hash::FxHashMap;

use super::Destination;

/// Up to here a search is as fast as an index, and takes no memory.
const SEARCHED_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Destinations {
    /// In no order, each with how many bindings lead there.
    list: Vec<(Destination, u32)>,
    /// Where each of them stands, once they are many.
    places: Option<Box<FxHashMap<Destination, u32>>>,
}

impl Destinations {
    pub(super) fn add(&mut self, destination: Destination) {
        if let Some(place) = self.find(destination) {
            self.list[place].1 += 1;
            return;
        }
        let place = self.list.len();
        self.list.push((destination, 1));
        if let Some(places) = &mut self.places {
            places.insert(destination, place as u32);
        } else if SEARCHED_MAX < self.list.len() {
            let places = self.list.iter().enumerate();
            let places = places.map(|(place, (destination, _))| (*destination, place as u32));
            self.places = Some(Box::new(places.collect()));
        }
    }

    /// Takes one binding away.
    pub(super) fn remove(&mut self, destination: Destination) {
        let Some(place) = self.find(destination) else { return };
        self.list[place].1 -= 1;
        if 0 < self.list[place].1 {
            return;
        }
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&destination);
            if let Some((moved, _)) = self.list.get(place) {
                places.insert(*moved, place as u32);
            }
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Destination> {
        self.list.iter().map(|(destination, _)| *destination)
    }

    pub(super) fn nth(&self, index: usize) -> Option<Destination> {
        self.list.get(index).map(|(destination, _)| *destination)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn find(&self, destination: Destination) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&destination).map(|place| *place as usize),
            None => self.list.iter().position(|(other, _)| *other == destination),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Destination, Destinations};
    use crate::table::Table;

    proptest! {
        #[test]
        fn a_list_counts_as_a_map_counts(steps in prop::collection::vec((0..60usize, any::<bool>()), 0..400)) {
            let mut table = Table::default();
            let keys: Vec<_> = (0..60).map(|_| Destination::Queue(table.insert_for_test())).collect();
            let mut list = Destinations::default();
            let mut model: BTreeMap<usize, u32> = BTreeMap::new();
            for (key, add) in steps {
                if add {
                    list.add(keys[key]);
                    *model.entry(key).or_default() += 1;
                } else {
                    list.remove(keys[key]);
                    if let Some(count) = model.get_mut(&key) {
                        *count -= 1;
                        if *count == 0 {
                            model.remove(&key);
                        }
                    }
                }
                let mut found: Vec<usize> = list
                    .iter()
                    .map(|one| keys.iter().position(|other| *other == one).unwrap())
                    .collect();
                found.sort_unstable();
                prop_assert!(found.iter().eq(model.keys()));
                prop_assert_eq!(list.len(), model.len());
            }
        }
    }
}
