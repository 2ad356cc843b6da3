//! How long calls took, in buckets of constant number whose width grows with the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets between two powers of two.
const PARTS: usize = 8;

/// Powers of two above the first buckets; the last bucket begins at about a minute.
const OCTAVES: usize = 24;

const BUCKETS: usize = PARTS * (OCTAVES + 1);

/// Counts that may be written by many at once.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(super) fn add(&self, elapsed: Duration) {
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.counts[place_of(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Latencies {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Latencies {
            counts: self.counts.iter().map(load).collect(),
            sum_us: load(&self.sum_us),
        }
    }
}

/// The times of calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latencies {
    /// Empty, or one a bucket.
    counts: Vec<u64>,
    sum_us: u64,
}

impl Latencies {
    /// How many calls there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of their times, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The time that this share of calls does not exceed, in microseconds; 0 if there were none.
    ///
    /// It is at most an eighth too high, and at most about two minutes.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return end_of(place);
            }
        }
        0
    }

    /// How many calls took less than two to this power of microseconds.
    #[must_use]
    pub fn below_power(&self, power: u32) -> u64 {
        let places = place_of(1_u64.checked_shl(power).unwrap_or(u64::MAX));
        self.counts.iter().take(places).sum()
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |place: usize| earlier.counts.get(place).copied().unwrap_or(0);
        let counts = self.counts.iter().enumerate();
        Self {
            counts: counts
                .map(|(place, count)| count.saturating_sub(before(place)))
                .collect(),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let of = |counts: &[u64], place: usize| counts.get(place).copied().unwrap_or(0);
        Self {
            counts: (0..BUCKETS)
                .map(|place| of(&self.counts, place) + of(&other.counts, place))
                .collect(),
            sum_us: self.sum_us.saturating_add(other.sum_us),
        }
    }
}

/// Up to `PARTS` one a microsecond, then so many for each doubling.
fn place_of(us: u64) -> usize {
    let parts = PARTS as u64;
    if us < parts {
        return us as usize;
    }
    let shift = us.ilog2() - parts.ilog2();
    let part = (us >> shift) - parts;
    let place = (shift as usize + 1) * PARTS + part as usize;
    place.min(BUCKETS - 1)
}

/// The longest time in a bucket.
fn end_of(place: usize) -> u64 {
    let (octave, part) = (place / PARTS, (place % PARTS) as u64);
    match octave.checked_sub(1) {
        None => part,
        Some(shift) => ((PARTS as u64 + part + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_told_at_most_an_eighth_too_high(us in 0..100_000_000_u64) {
            let told = end_of(place_of(us));
            prop_assert!(told >= us && told <= us + us / 8, "{us} told as {told}");
        }
    }

    #[test]
    fn what_is_below_a_power_of_two_is_counted_exactly() {
        let histogram = Histogram::default();
        for us in [0, 3, 4, 255, 256, 257, 1_000_000] {
            histogram.add(Duration::from_micros(us));
        }
        let read = histogram.read();
        let below = [(0, 1), (2, 2), (3, 3), (8, 4), (9, 6), (19, 6), (20, 7)];
        for (power, count) in below {
            assert_eq!(read.below_power(power), count, "2^{power}");
        }
        assert_eq!(Latencies::default().below_power(20), 0);
    }

    #[test]
    fn quantiles_are_of_the_times_that_were_added() {
        let histogram = Histogram::default();
        for ms in 1..=1_000 {
            histogram.add(Duration::from_millis(ms));
        }
        histogram.add(Duration::MAX);
        let read = histogram.read();
        let is_about = |told: u64, us: u64| (us..=us + us / 8).contains(&told);
        assert!(
            is_about(read.quantile_us(0.5), 501_000),
            "{}",
            read.quantile_us(0.5)
        );
        assert!(
            is_about(read.quantile_us(0.99), 991_000),
            "{}",
            read.quantile_us(0.99)
        );
        assert!(read.quantile_us(1.0) > 60_000_000);
        assert_eq!(Latencies::default().quantile_us(0.99), 0);
    }
}
