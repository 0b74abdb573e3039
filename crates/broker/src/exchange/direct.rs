//! Direct routing: by the whole key.

use compact_str::CompactString;
use rustc_hash::FxHashMap;

use super::destinations::Destinations;
use super::{Binding, Destination, Routed, Router};
use crate::exception::Exception;

#[derive(Default)]
pub(super) struct Direct {
    keys: FxHashMap<CompactString, Destinations>,
}

impl Router for Direct {
    fn add(&mut self, binding: &Binding, _name: &str) -> Result<u32, Exception> {
        self.keys.entry(binding.routing_key.clone()).or_default().add(binding.destination);
        Ok(0)
    }

    fn remove(&mut self, binding: &Binding, _place: u32) {
        if let Some(list) = self.keys.get_mut(&binding.routing_key) {
            list.remove(binding.destination);
            if list.is_empty() {
                self.keys.remove(&binding.routing_key);
            }
        }
    }

    #[inline]
    fn route(&mut self, message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        for key in message.keys() {
            self.keys.get(key).into_iter().flat_map(Destinations::iter).for_each(&mut *each);
        }
    }
}
