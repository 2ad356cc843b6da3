//! The marks that are left: how many, how old, and the work that ends them.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::marker::{DIRTY, Dirty, Intent, REVERSE};
use super::sides::Sides;
use crate::ports::{Kind, PortError};

/// Marks in one page of a look. Some stores look at so many keys of any kind for each call.
const PAGE: usize = 1_000;

/// Pause between two looks of a drain.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Most marks that a drain waits for by name; what is beyond is found when these are gone.
const MOST_AWAITED: usize = 100_000;

/// Records that one side may lack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Marks {
    /// Records that the new side may lack.
    pub dirty: MarkCount,
    /// Writes that may not be on the old side, while the new one accepts them.
    pub reverse: MarkCount,
}

impl Marks {
    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.dirty.count + self.reverse.count
    }

    /// The age of the oldest, in milliseconds.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.dirty.oldest_ms.max(self.reverse.oldest_ms)
    }
}

/// The marks of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MarkCount {
    /// How many.
    pub count: u64,
    /// The age of the oldest in milliseconds, by the clocks of who set it and who looked.
    pub oldest_ms: Option<u64>,
    /// How many for each kind of record.
    pub of: Vec<KindCount>,
}

/// How many marks name records of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCount {
    /// The kind of the records.
    pub kind: String,
    /// How many.
    pub count: u64,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Whether every mark that was there when it began is gone.
    pub drained: bool,
    /// How many there were.
    pub before: u64,
    /// How many of these are left.
    pub left: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// All marks that are there now.
    pub marks: Marks,
}

impl Sides {
    /// Counts the marks.
    ///
    /// # Errors
    /// As the old side.
    pub(super) async fn marks(&self) -> Result<Marks, PortError> {
        Ok(Marks {
            dirty: self.count(DIRTY).await?,
            reverse: self.count(REVERSE).await?,
        })
    }

    async fn count(&self, marks: Kind) -> Result<MarkCount, PortError> {
        let now = self.clock.now().unix_micros();
        let mut counts = vec![0; self.kinds.len()];
        let mut oldest: Option<i64> = None;
        let mut from = None;
        loop {
            let page = self.old.scan(marks, from, PAGE).await?;
            for (mark, stored) in &page.entries {
                let Some(key) = self.marked(mark, stored) else {
                    continue;
                };
                let kinds = self.kinds.iter().zip(&mut counts);
                for (_, count) in kinds.filter(|(kind, _)| **kind == key.kind) {
                    *count += 1;
                }
                // One of an earlier version has no time.
                let at = at_of(marks, &stored.value).filter(|at| *at > 0);
                oldest = at.into_iter().chain(oldest).min();
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let of = self
            .kinds
            .iter()
            .zip(&counts)
            .filter(|(_, count)| **count > 0);
        Ok(MarkCount {
            count: counts.iter().sum(),
            oldest_ms: oldest.map(|at| u64::try_from((now - at) / 1000).unwrap_or(0)),
            of: of
                .map(|(kind, count)| KindCount {
                    kind: kind.as_str().to_owned(),
                    count: *count,
                })
                .collect(),
        })
    }

    /// Copies what is marked until no mark is left that was there at the beginning, or the time is over.
    ///
    /// # Errors
    /// As the old side. What fails for one record keeps its mark and is tried again.
    pub(super) async fn drain(&self, limit: Duration) -> Result<Drained, PortError> {
        let began = Instant::now();
        let awaited = self.writes().await?;
        let mut left = awaited.len();
        while left > 0 && began.elapsed() < limit {
            self.repair(DIRTY, None).await?;
            self.repair(REVERSE, None).await?;
            left = self.writes().await?.intersection(&awaited).count();
            if left > 0 {
                sleep(LOOK_EVERY).await;
            }
        }
        let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Ok(Drained {
            drained: left == 0,
            before: number(awaited.len()),
            left: number(left),
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            marks: self.marks().await?,
        })
    }

    /// The writes whose marks are there. Each has a name that no other has.
    async fn writes(&self) -> Result<HashSet<String>, PortError> {
        let mut writes = HashSet::new();
        for marks in [DIRTY, REVERSE] {
            let mut from = None;
            while writes.len() < MOST_AWAITED {
                let page = self.old.scan(marks, from, PAGE).await?;
                let awaited = page.entries.iter();
                let awaited = awaited.filter(|(mark, stored)| self.marked(mark, stored).is_some());
                let found = awaited.map(|(mark, stored)| {
                    let write = match marks == REVERSE {
                        true => Intent::decode(&stored.value).map(|intent| intent.write),
                        false => Dirty::decode(&stored.value).map(|dirty| dirty.write),
                    };
                    write.unwrap_or_else(|| format!("{mark} {}", stored.etag.as_str()))
                });
                writes.extend(found);
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
        }
        Ok(writes)
    }
}

fn at_of(marks: Kind, value: &[u8]) -> Option<i64> {
    match marks == REVERSE {
        true => Intent::decode(value).map(|intent| intent.at_us),
        false => Dirty::decode(value).map(|dirty| dirty.at_us),
    }
}
