//! How many buckets are in which stage.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::{Bucket, Stage, Way};

/// Thresholds of the longest way.
const MOST: usize = 6;

/// For each stage of a port behind its first, how many buckets have reached it.
///
/// The first one is the greatest. A bucket's stage is the number of thresholds above its own number, so a
/// threshold that rises moves buckets by exactly one stage, and the same buckets come back when it falls.
/// As JSON it is a row of numbers, one for each stage behind the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u16>", into = "Vec<u16>", bound = "")]
pub struct Thresholds<S: Way = Stage> {
    /// Those of a shorter way end with zeros, which no bucket is below.
    reached: [u16; MOST],
    way: PhantomData<S>,
}

/// Thresholds that do not follow from each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// There are not so many buckets.
    #[error("there are {} buckets, not {found}", Bucket::COUNT)]
    TooMany {
        /// How many were named.
        found: u16,
    },
    /// Buckets would jump over a stage on the way there.
    #[error("{wanted} buckets cannot reach {stage}: {before} has {available}")]
    TooFewBefore {
        /// The stage to be reached.
        stage: &'static str,
        /// How many buckets were to reach it.
        wanted: u16,
        /// The stage before it.
        before: &'static str,
        /// How many buckets have reached that.
        available: u16,
    },
    /// Buckets would jump over a stage on the way back.
    #[error("{stage} cannot fall to {wanted} buckets: {behind} has {taken}")]
    TooManyBehind {
        /// The stage to be left.
        stage: &'static str,
        /// How many buckets were to stay.
        wanted: u16,
        /// The stage behind it.
        behind: &'static str,
        /// How many buckets have reached that.
        taken: u16,
    },
    /// Every bucket is in the first stage or behind it.
    #[error("{stage} has no threshold")]
    First {
        /// The stage.
        stage: &'static str,
    },
    /// It is a row of another way.
    #[error("a row of {expected} thresholds is expected, this one has {found}")]
    Length {
        /// How many stages have a threshold.
        expected: usize,
        /// How many were found.
        found: usize,
    },
}

impl<S: Way> Thresholds<S> {
    /// The stage of a bucket.
    #[must_use]
    pub fn stage_of(&self, bucket: Bucket) -> S {
        let reached = self.reached.iter().filter(|most| bucket.number() < **most);
        S::at(reached.count())
    }

    /// How many buckets have reached a stage, or gone past it.
    #[must_use]
    pub fn reached(&self, stage: S) -> u16 {
        match stage.place().checked_sub(1) {
            None => Bucket::COUNT,
            Some(index) => self.reached[index],
        }
    }

    /// How many buckets are in a stage now.
    #[must_use]
    pub fn within(&self, stage: S) -> u16 {
        self.reached(stage) - self.beyond(stage)
    }

    /// How many buckets have gone past a stage.
    #[must_use]
    pub fn beyond(&self, stage: S) -> u16 {
        self.reached.get(stage.place()).copied().unwrap_or(0)
    }

    /// Whether every bucket is in the first stage.
    #[must_use]
    pub fn are_off(&self) -> bool {
        self.reached[0] == 0
    }

    /// The same with so many buckets that have reached a stage.
    ///
    /// # Errors
    /// What would make a bucket jump over a stage.
    pub fn with(&self, stage: S, wanted: u16) -> Result<Self, ThresholdError> {
        let Some(index) = stage.place().checked_sub(1) else {
            let stage = stage.as_str();
            return Err(ThresholdError::First { stage });
        };
        if wanted > Bucket::COUNT {
            return Err(ThresholdError::TooMany { found: wanted });
        }
        let available = self.reached(S::at(index));
        if wanted > available {
            return Err(ThresholdError::TooFewBefore {
                stage: stage.as_str(),
                wanted,
                before: S::at(index).as_str(),
                available,
            });
        }
        if let Some(&taken) = self.reached.get(index + 1)
            && wanted < taken
        {
            return Err(ThresholdError::TooManyBehind {
                stage: stage.as_str(),
                wanted,
                behind: S::at(index + 2).as_str(),
                taken,
            });
        }
        let mut next = *self;
        next.reached[index] = wanted;
        Ok(next)
    }
}

impl<S: Way> Default for Thresholds<S> {
    /// Every bucket is in the first stage.
    fn default() -> Self {
        Self {
            reached: [0; MOST],
            way: PhantomData,
        }
    }
}

impl<S: Way> TryFrom<Vec<u16>> for Thresholds<S> {
    type Error = ThresholdError;

    fn try_from(reached: Vec<u16>) -> Result<Self, ThresholdError> {
        let (expected, found) = (S::ALL.len() - 1, reached.len());
        if found != expected {
            return Err(ThresholdError::Length { expected, found });
        }
        let mut thresholds = Self::default();
        for (index, wanted) in reached.into_iter().enumerate() {
            thresholds = thresholds.with(S::at(index + 1), wanted)?;
        }
        Ok(thresholds)
    }
}

impl<S: Way> From<Thresholds<S>> for Vec<u16> {
    fn from(thresholds: Thresholds<S>) -> Self {
        thresholds.reached[..S::ALL.len() - 1].to_vec()
    }
}

impl<S: Way> fmt::Display for Thresholds<S> {
    /// The stages that have buckets, with their share: `live 25.00 %, shadow 75.00 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = S::ALL.iter().copied().rev();
        let present = present.filter(|stage| self.within(*stage) > 0);
        for (n, stage) in present.enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            let share = self.within(stage);
            let stage = stage.as_str();
            write!(f, "{comma}{stage} {}.{:02} %", share / 100, share % 100)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::migration::{BusStage, NotifierStage};

    fn thresholds(reached: [u16; 6]) -> Thresholds {
        Thresholds::try_from(reached.to_vec()).expect("they fall")
    }

    fn bucket_of_number() -> impl Strategy<Value = Bucket> {
        (0..1_000_000_u32).prop_map(|n| Bucket::of("", &n.to_string()))
    }

    fn any_thresholds() -> impl Strategy<Value = Thresholds> {
        proptest::array::uniform6(0..=Bucket::COUNT).prop_map(|mut reached| {
            reached.sort_unstable_by(|a, b| b.cmp(a));
            thresholds(reached)
        })
    }

    proptest! {
        #[test]
        fn a_change_moves_every_bucket_by_at_most_one_stage(
            now in any_thresholds(), bucket in bucket_of_number(), place in 1..7_usize, wanted in 0..=Bucket::COUNT,
        ) {
            if let Ok(next) = now.with(Stage::at(place), wanted) {
                let (from, to) = (now.stage_of(bucket).place(), next.stage_of(bucket).place());
                prop_assert!(from.abs_diff(to) <= 1);
            }
        }

        #[test]
        fn a_change_of_a_shorter_way_moves_every_bucket_by_at_most_one_stage(
            mut reached in proptest::collection::vec(0..=Bucket::COUNT, 3),
            bucket in bucket_of_number(), place in 1..4_usize, wanted in 0..=Bucket::COUNT,
        ) {
            reached.sort_unstable_by(|a, b| b.cmp(a));
            let now = Thresholds::<BusStage>::try_from(reached).expect("they fall");
            if let Ok(next) = now.with(BusStage::at(place), wanted) {
                let (from, to) = (now.stage_of(bucket).place(), next.stage_of(bucket).place());
                prop_assert!(from.abs_diff(to) <= 1);
            }
        }

        #[test]
        fn the_parts_make_the_whole(now in any_thresholds()) {
            let parts = Stage::ALL.map(|stage| now.within(stage));
            prop_assert_eq!(parts.iter().sum::<u16>(), Bucket::COUNT);
        }
    }

    #[test]
    fn a_jump_is_refused_with_the_stage_that_is_in_the_way() {
        let now = thresholds([5_000, 2_500, 0, 0, 0, 0]);
        let refusal = now.with(Stage::Live, 2_501).expect_err("a jump");
        assert_eq!(
            refusal.to_string(),
            "2501 buckets cannot reach live: shadow has 2500"
        );
        let refusal = now.with(Stage::DualWrite, 2_499).expect_err("a jump back");
        assert_eq!(
            refusal.to_string(),
            "dualwrite cannot fall to 2499 buckets: shadow has 2500"
        );
        let first = ThresholdError::First { stage: "off" };
        assert_eq!(now.with(Stage::Off, 1), Err(first));
        let found = 10_001;
        assert_eq!(
            now.with(Stage::Shadow, found),
            Err(ThresholdError::TooMany { found })
        );
    }

    #[test]
    fn what_does_not_fall_is_no_record_of_ours() {
        assert!(serde_json::from_str::<Thresholds>("[1,2,0,0,0,0]").is_err());
        assert!(serde_json::from_str::<Thresholds>("[2,1,0,0,0,0]").is_ok());
    }

    #[test]
    fn a_shorter_way_has_fewer_thresholds_and_ends_with_its_last_stage() {
        let bus = Thresholds::<BusStage>::default();
        assert_eq!(serde_json::to_string(&bus).expect("numbers"), "[0,0,0]");
        let all = Bucket::COUNT;
        let bus = bus.with(BusStage::Shadow, all).expect("a step");
        let bus = bus.with(BusStage::Live, all).expect("a step");
        let bus = bus.with(BusStage::Complete, 4_000).expect("a step");
        assert_eq!(bus.to_string(), "complete 40.00 %, live 60.00 %");
        assert_eq!(bus.beyond(BusStage::Complete), 0);
        let text = serde_json::to_string(&bus).expect("numbers");
        assert_eq!(text, "[10000,10000,4000]");
        assert_eq!(
            serde_json::from_str::<Thresholds<BusStage>>(&text).ok(),
            Some(bus)
        );
        let error = serde_json::from_str::<Thresholds<NotifierStage>>(&text);
        let error = error.expect_err("another way").to_string();
        assert!(
            error.starts_with("a row of 1 thresholds is expected, this one has 3"),
            "{error}"
        );
    }

    #[test]
    fn people_read_shares() {
        let now = thresholds([10_000, 10_000, 2_500, 0, 0, 0]);
        assert_eq!(now.to_string(), "live 25.00 %, shadow 75.00 %");
        assert_eq!(Thresholds::<Stage>::default().to_string(), "off 100.00 %");
    }
}
