//! The keys that a reader has passed over, in constant memory.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Bits: 1 MiB of memory. With 100,000 keys one other key in 1,800 seems to be among them, with a
/// million one in 20.
const BITS: u64 = 1 << 23;

/// A set of keys that may hold some more than were put in, never fewer.
///
/// A key that seems to be in it is held back until the set is cleared, and then looks different: so no
/// key is held back for ever by its likeness to others.
#[derive(Debug, Default)]
pub(super) struct Passed {
    words: Vec<u64>,
    round: u64,
    has_any: bool,
}

impl Passed {
    pub(super) fn insert(&mut self, key: &str) {
        if self.words.is_empty() {
            self.words = vec![0; usize::try_from(BITS / 64).expect("a small number")];
        }
        self.has_any = true;
        for (word, bit) in self.places(key) {
            self.words[word] |= bit;
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        let is_set = |(word, bit): (usize, u64)| self.words[word] & bit != 0;
        self.has_any && self.places(key).into_iter().all(is_set)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_any
    }

    pub(super) fn clear(&mut self) {
        self.round += 1;
        if self.has_any {
            self.words.fill(0);
            self.has_any = false;
        }
    }

    fn places(&self, key: &str) -> [(usize, u64); 2] {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((self.round, key));
        [hash, hash >> 32].map(|hash| {
            let bit = hash % BITS;
            let word = usize::try_from(bit / 64).expect("a small number");
            (word, 1 << (bit % 64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let mut passed = Passed::default();
        assert!(!passed.has("0"));
        for key in 0..100_000 {
            passed.insert(&key.to_string());
        }
        assert!((0..100_000).all(|key| passed.has(&key.to_string())));
        let alike = |passed: &Passed| {
            let others = 100_000..200_000;
            let found = others.filter(|key| passed.has(&key.to_string()));
            found.collect::<Vec<_>>()
        };
        let first = alike(&passed);
        assert!(first.len() < 200, "{}", first.len());
        passed.clear();
        assert!(!passed.has("0"));
        for key in 0..100_000 {
            passed.insert(&key.to_string());
        }
        assert_ne!(alike(&passed), first, "another round, other likenesses");
    }
}
