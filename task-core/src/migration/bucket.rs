//! Which part of all records a record belongs to.

use xxhash_rust::xxh3::Xxh3;

/// One of ten thousand parts of all records, the same on every replica and in every version.
///
/// It is `xxh3_64(salt ++ id) mod 10000`. A part moves as a whole, so 0.01 % is the smallest step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// How many there are.
    pub const COUNT: u16 = 10_000;

    /// The part of an id.
    #[must_use]
    pub fn of(salt: &str, id: &str) -> Self {
        let mut hash = Xxh3::new();
        hash.update(salt.as_bytes());
        hash.update(id.as_bytes());
        let place = hash.digest() % u64::from(Self::COUNT);
        Self(u16::try_from(place).expect("the count fits"))
    }

    /// The number, less than [`COUNT`](Self::COUNT).
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_never_change() {
        let vectors = [
            ("", "", 3_138),
            ("", "t-1", 5_779),
            ("s1", "0970f17a-0bfc-4705-925f-febe243dbe99", 3_292),
        ];
        let found = vectors.map(|(salt, id, _)| Bucket::of(salt, id).number());
        assert_eq!(found, vectors.map(|(_, _, bucket)| bucket));
    }

    #[test]
    fn every_bucket_has_about_as_many_ids() {
        let mut counts = [0_u32; 10];
        for n in 0..20_000 {
            let bucket = Bucket::of("salt", &format!("task-{n}")).number();
            counts[usize::from(bucket / 1000)] += 1;
        }
        assert!(
            counts.iter().all(|count| (1_800..2_200).contains(count)),
            "{counts:?}"
        );
    }
}
