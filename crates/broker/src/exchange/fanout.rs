//! Fanout routing: to everyone.

use super::destinations::Destinations;
use super::{Binding, Destination, Routed, Router};
use crate::exception::Exception;

#[derive(Default)]
pub(super) struct Fanout {
    all: Destinations,
}

impl Router for Fanout {
    fn add(&mut self, binding: &Binding, _name: &str) -> Result<u32, Exception> {
        self.all.add(binding.destination);
        Ok(0)
    }

    fn remove(&mut self, binding: &Binding, _place: u32) {
        self.all.remove(binding.destination);
    }

    #[inline]
    fn route(&mut self, _message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        self.all.iter().for_each(each);
    }
}
