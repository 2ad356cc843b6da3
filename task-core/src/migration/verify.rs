//! Compares the sides of a record, and accuses nobody wrongly.
//!
//! While a stage mirrors writes, the follower of a record equals its leader or there is a mark, at every
//! instant. No call reads all three at once, so a look reads in an order that proves it: the control record,
//! the leader, the marks, the follower, the leader again, the control record again. If neither the leader nor
//! the epoch has changed in between, nobody wrote; if there was no mark then, there was none when the follower
//! was read. What such a look finds is found twice before it counts.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::control::WaitingFrom;
use super::difference::means_the_same;
use super::gone::is_left;
use super::job::{Counts, Fix};
use super::marker::{DIRTY, Dirty, Intent, Limits, REVERSE, mark_of, name_in_mark, tag_of};
use super::sides::Sides;
use super::sync::is_ahead;
use super::{Control, Difference, Disagreement, MoveError, Side, Stage, Synced};
use crate::ports::{Commit, ErrorKind, Key, Kind, PortError, PutOptions, Stored, Write, WriteMode};

/// How often a record is looked at while it changes.
const MOST_LOOKS: usize = 8;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A value with a limited life may end so much earlier or later on the other side.
const TOLERANCE: Duration = Duration::from_secs(2);

/// What a look at a record found.
#[derive(Debug)]
pub(super) enum Look {
    Equal,
    /// A mark says that the follower is behind.
    Behind,
    /// The stage mirrors nothing.
    NotCompared,
    Disagree {
        leader: Side,
        how: Disagreement,
        old: Option<Stored>,
        new: Option<Stored>,
    },
}

/// What became of one record.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub(super) counts: Counts,
    pub(super) difference: Option<Difference>,
}

impl Sides {
    /// Compares one record, of which a scan of the old side may have told the value.
    ///
    /// # Errors
    /// As the sides; `Throttled` for a record that never rests.
    pub(super) async fn verify_one(
        &self,
        key: &Key,
        scanned: Option<&Bytes>,
        fix: Fix,
    ) -> Result<Verified, PortError> {
        if let Some(scanned) = scanned
            && leader_of(self.member.pin()?.control(), key).is_some()
            && let Some(new) = self.record(Side::New, key).await?
            && means_the_same(scanned, &new.value)
        {
            return Ok(Verified::of(|counts| counts.equal = 1));
        }
        let first = self.look(key).await?;
        let looked = match &first {
            Look::Disagree { how, .. } => {
                sleep(patience(key, *how)).await;
                self.look(key).await?
            }
            Look::Equal | Look::Behind | Look::NotCompared => first,
        };
        match looked {
            Look::Equal => Ok(Verified::of(|counts| counts.equal = 1)),
            Look::Behind => Ok(Verified::of(|counts| counts.behind = 1)),
            Look::NotCompared => Ok(Verified::of(|counts| counts.skipped = 1)),
            Look::Disagree {
                leader,
                how,
                old,
                new,
            } => {
                let (old, new) = (old.map(|old| old.value), new.map(|new| new.value));
                let mut difference = Difference::of(key, how, old.as_deref(), new.as_deref());
                difference.repaired = self.repaired(key, leader, how, fix).await?;
                let mut verified = Verified::of(|counts| {
                    *count_of(counts, how) = 1;
                    counts.repaired = u64::from(difference.repaired);
                });
                verified.difference = Some(difference);
                Ok(verified)
            }
        }
    }

    /// Looks once. Nothing that is right looks like a disagreement.
    pub(super) async fn look(&self, key: &Key) -> Result<Look, PortError> {
        for _ in 0..MOST_LOOKS {
            let before = self.control_of_look().await?;
            let Some(leader) = leader_of(&before, key) else {
                return Ok(Look::NotCompared);
            };
            let led = self.record(leader, key).await?;
            let marks = [mark_of(DIRTY, key), mark_of(REVERSE, key)];
            let marks = self.old.get_many(&marks).await?;
            let followed = self.record(leader.other(), key).await?;
            let value = |stored: &Option<Stored>| stored.as_ref().map(|one| one.value.clone());
            let how = Disagreement::of(value(&led).as_deref(), value(&followed).as_deref());
            let Some(how) = how else {
                return Ok(Look::Equal);
            };
            if marks.iter().any(Option::is_some) {
                return Ok(Look::Behind);
            }
            let rests = led == self.record(leader, key).await?
                && before.epoch == self.control_of_look().await?.epoch;
            if rests {
                let (old, new) = match leader {
                    Side::Old => (led, followed),
                    Side::New => (followed, led),
                };
                return Ok(Look::Disagree {
                    leader,
                    how,
                    old,
                    new,
                });
            }
            sleep(LOOK_EVERY).await;
        }
        let error = PortError::new(ErrorKind::Throttled, "parallel", "verify");
        Err(error.context(format!("{key} changed during each of {MOST_LOOKS} looks")))
    }

    /// What a side has; what a deletion has left on the new one is nothing.
    async fn record(&self, side: Side, key: &Key) -> Result<Option<Stored>, PortError> {
        let found = self.of(side).get(key).await?;
        Ok(match side {
            Side::Old => found,
            Side::New => found.filter(|stored| !is_left(&stored.value)),
        })
    }

    async fn control_of_look(&self) -> Result<Control, PortError> {
        match self.control().await {
            Ok(control) => Ok(control),
            Err(MoveError::Port(error)) => Err(error),
            Err(error) => {
                Err(PortError::new(ErrorKind::Corrupt, "parallel", "verify").caused_by(error))
            }
        }
    }

    /// Makes both sides the same, and says whether that was wanted and done.
    async fn repaired(
        &self,
        key: &Key,
        leader: Side,
        how: Disagreement,
        fix: Fix,
    ) -> Result<bool, PortError> {
        let wanted = match fix {
            Fix::Nothing => false,
            Fix::Mismatches => how != Disagreement::Ahead,
            Fix::MismatchesAndAhead => true,
        };
        if !wanted {
            return Ok(false);
        }
        if how == Disagreement::Ahead && !self.adopt(key, leader).await? {
            return Ok(false);
        }
        let synced = match leader {
            Side::Old => self.forward(key).await?,
            Side::New => {
                self.ask_to_follow(key).await?;
                self.backward(key).await?
            }
        };
        Ok(matches!(synced, Synced::Equal | Synced::Copied))
    }

    /// Gives the side that accepts writes what the other one has of a later change.
    ///
    /// It is written as any write of that stage, over the version that was read; no event comes of it.
    async fn adopt(&self, key: &Key, leader: Side) -> Result<bool, PortError> {
        let pin = self.member.pin()?;
        if leader_of(pin.control(), key) != Some(leader) {
            return Ok(false);
        }
        let led = self.record(leader, key).await?;
        let ahead = self.record(leader.other(), key).await?;
        let (Some(led), Some(ahead)) = (led, ahead) else {
            return Ok(false);
        };
        if !is_ahead(&ahead.value, &led.value) {
            return Ok(false);
        }
        pin.check()?;
        let options = PutOptions {
            mode: WriteMode::Match(led.etag),
            ttl: None,
        };
        match leader {
            Side::Old => {
                let dirty = Dirty {
                    write: self.name_of_write(),
                    at_us: self.clock.now().unix_micros(),
                    name: name_in_mark(key),
                    limits: Limits::default(),
                };
                let put = Write::Put {
                    key: key.clone(),
                    value: ahead.value,
                    options,
                };
                let mark = Write::Put {
                    key: mark_of(DIRTY, key),
                    value: dirty.encode(),
                    options: PutOptions::default(),
                };
                let commit = Commit::of(put).write(mark).guard(pin.control().guard());
                self.old.commit(commit).await?;
            }
            Side::New => {
                self.ask_to_follow(key).await?;
                self.new.put(key, ahead.value, options).await?;
            }
        }
        Ok(true)
    }

    /// Notes that the old side may lack what the new one has, unless a note of that is there.
    async fn ask_to_follow(&self, key: &Key) -> Result<(), PortError> {
        let pin = self.member.pin()?;
        let new = self.record(Side::New, key).await?;
        let intent = Intent {
            write: self.name_of_write(),
            at_us: self.clock.now().unix_micros(),
            name: name_in_mark(key),
            result: new.map(|new| tag_of(&new.value).as_str().to_owned()),
            is_birth: false,
            limits: Limits::default(),
            events: Vec::new(),
        };
        let commit = Commit::of(Write::Put {
            key: mark_of(REVERSE, key),
            value: intent.encode(),
            options: PutOptions {
                mode: WriteMode::Create,
                ttl: None,
            },
        });
        match self.old.commit(commit.guard(pin.control().guard())).await {
            Err(error) if !error.is_conflict() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Verified {
    fn of(count: impl FnOnce(&mut Counts)) -> Self {
        let mut verified = Self::default();
        count(&mut verified.counts);
        verified
    }
}

/// The side that the other one follows.
fn leader_of(control: &Control, key: &Key) -> Option<Side> {
    match control.stage_of(key) {
        Stage::Off | Stage::Complete => None,
        Stage::DualWrite | Stage::Shadow | Stage::Live => Some(Side::Old),
        Stage::Handoff => match control.waiting_from {
            Some(WaitingFrom::Live) | None => Some(Side::Old),
            Some(WaitingFrom::RampDown) => Some(Side::New),
        },
        Stage::RampDown => Some(Side::New),
    }
}

fn patience(key: &Key, how: Disagreement) -> Duration {
    let is_limited = key.kind == Kind::SEEN;
    match how {
        Disagreement::Missing | Disagreement::Extra if is_limited => TOLERANCE,
        Disagreement::Missing
        | Disagreement::Extra
        | Disagreement::Different
        | Disagreement::Stale
        | Disagreement::Ahead => LOOK_EVERY,
    }
}

fn count_of(counts: &mut Counts, how: Disagreement) -> &mut u64 {
    match how {
        Disagreement::Missing => &mut counts.missing,
        Disagreement::Extra => &mut counts.extra,
        Disagreement::Different => &mut counts.different,
        Disagreement::Stale => &mut counts.stale,
        Disagreement::Ahead => &mut counts.ahead,
    }
}
