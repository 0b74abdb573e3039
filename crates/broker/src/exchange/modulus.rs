//! Routing by the key's hash, modulo the number of destinations (`x-modulus-hash`): as even as can be, and almost every
//! key moves when a binding comes or goes. The destinations are counted in the order of their names' hashes, so
//! that a restart moves nothing.

use rustc_hash::FxHashMap;

use super::hash::{hash_bytes, hash_name};
use super::{Binding, Destination, Routed, Router};
use crate::exception::Exception;

#[derive(Default)]
pub(super) struct Modulus {
    /// The hash of each one's name, and how many bindings lead there.
    all: FxHashMap<Destination, (u64, u32)>,
    /// In order.
    sorted: Vec<Destination>,
    /// Bindings have changed since.
    stale: bool,
}

impl Router for Modulus {
    fn add(&mut self, binding: &Binding, name: &str) -> Result<u32, Exception> {
        let seed = hash_name(binding.destination, name);
        self.all.entry(binding.destination).or_insert((seed, 0)).1 += 1;
        self.stale = true;
        Ok(0)
    }

    fn remove(&mut self, binding: &Binding, _place: u32) {
        if let Some((_, count)) = self.all.get_mut(&binding.destination) {
            *count -= 1;
            if *count == 0 {
                self.all.remove(&binding.destination);
            }
        }
        self.stale = true;
    }

    fn route(&mut self, message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        if std::mem::take(&mut self.stale) {
            self.sorted = self.all.keys().copied().collect();
            self.sorted.sort_by_cached_key(|one| self.all.get(one).map(|(seed, _)| *seed));
        }
        if !self.sorted.is_empty() {
            let hash = message.keys().fold(0, |hash, key| hash_bytes(hash, key.as_bytes()));
            each(self.sorted[(hash % self.sorted.len() as u64) as usize]);
        }
    }
}
