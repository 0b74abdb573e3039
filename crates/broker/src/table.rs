//! Tables with keys that know when they are stale.

use std::fmt;
use std::marker::PhantomData;

use slab::Slab;

/// Names an entry of a [`Table`]. When the entry has gone, the key finds nothing, even if its place is used
/// again.
pub(crate) struct Key<T> {
    index: u32,
    serial: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// A key that finds nothing.
    pub(crate) fn nothing() -> Self {
        Self { index: u32::MAX, serial: 0, of: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.serial) == (other.index, other.serial)
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.index, self.serial).cmp(&(other.index, other.serial))
    }
}

impl<T> std::hash::Hash for Key<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.serial) << 32 | u64::from(self.index));
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.serial)
    }
}

pub(crate) struct Table<T> {
    entries: Slab<(u32, T)>,
    last_serial: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Slab::new(), last_serial: 0 }
    }
}

impl<T> Table<T> {
    pub(crate) fn insert(&mut self, value: T) -> Key<T> {
        self.last_serial = self.last_serial.wrapping_add(1);
        let index = self.entries.insert((self.last_serial, value)) as u32;
        Key { index, serial: self.last_serial, of: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        match self.entries.get(key.index as usize) {
            Some((serial, value)) if *serial == key.serial => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some((serial, value)) if *serial == key.serial => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        self.get(key)?;
        Some(self.entries.remove(key.index as usize).1)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.entries.iter().map(|(index, (serial, value))| {
            (Key { index: index as u32, serial: *serial, of: PhantomData }, value)
        })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, (_, value))| value)
    }

    pub(crate) fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
impl Table<crate::queue::Queue> {
    /// A key for tests that need no more than keys.
    pub(crate) fn insert_for_test(&mut self) -> Key<crate::queue::Queue> {
        self.insert(crate::queue::Queue::new(0, &crate::vhost::VhostRef::nowhere(), ""))
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn a_key_does_not_find_the_next_tenant_of_its_place() {
        let mut table = Table::default();
        let old = table.insert("old");
        assert_eq!(table.remove(old), Some("old"));
        let new = table.insert("new");
        assert_eq!((table.get(old), table.get(new)), (None, Some(&"new")));
        assert_eq!(table.remove(old), None);
        assert_eq!(table.len(), 1);
    }
}
