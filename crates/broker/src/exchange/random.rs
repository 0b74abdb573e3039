//! Random routing (`x-random`, `x-local-random`): to one of the destinations, each as likely as the others. On one
//! node everything is local.

use super::destinations::Destinations;
use super::hash::scatter;
use super::{Binding, Destination, Routed, Router};
use crate::exception::Exception;

#[derive(Default)]
pub(super) struct Random {
    all: Destinations,
    /// Messages so far. Scattered they are chance enough to share work, and a test or a simulation finds them again.
    count: u64,
}

impl Router for Random {
    fn add(&mut self, binding: &Binding, _name: &str) -> Result<u32, Exception> {
        self.all.add(binding.destination);
        Ok(0)
    }

    fn remove(&mut self, binding: &Binding, _place: u32) {
        self.all.remove(binding.destination);
    }

    fn route(&mut self, _message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        if self.all.is_empty() {
            return;
        }
        self.count += 1;
        let index = scatter(self.count) % self.all.len() as u64;
        self.all.nth(index as usize).into_iter().for_each(each);
    }
}
