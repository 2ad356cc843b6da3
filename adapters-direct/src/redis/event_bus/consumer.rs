//! One consumer of a group, and its commands on the stream.
//!
//! The group's list of pending entries is the durable list of what is unfinished: an entry is on it from
//! the moment it was read until it is acknowledged, with the consumer that has it, its idle time and its
//! delivery counter. What must not be half done, or depends on who has an entry, is a script.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value, cmd};
use task_core::dispatch::DeadReason;
use task_core::ports::{Delivery, Entropy, Redelivery, StartAt, Subscription};

use super::super::answer::converted;
use super::super::connection::Connection;
use super::super::dedicated::Dedicated;
use super::super::error::{Effect, Failure};
use super::super::script::Script;
use super::entry::{self, Entry, EntryId};
use crate::dead_letter::{DELIVERIES, OFFSET, REASON, TOPIC};

/// Entries of one command: a longer one would keep the server from everybody else.
const MAX_PER_COMMAND: usize = 500;

/// Idle time of entries that are given back: longer than anybody waits before taking over.
const GIVEN_BACK: Duration = Duration::from_secs(24 * 60 * 60);

/// What the names of our consumers begin with.
const OURS: &str = "task-core-";

static JOIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/join.lua")));
static KEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/keep.lua")));
static BURY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/bury.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/leave.lua")));
static TRIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/trim.lua")));

/// A name in the group that nobody else has, and where it reads.
#[derive(Debug, Clone)]
pub(super) struct Consumer {
    connection: Arc<Connection>,
    stream: Box<str>,
    dead_letter: Box<str>,
    group: Box<str>,
    name: Box<str>,
}

/// Which pending entries to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// Those that nobody has touched for so long.
    Idle(Duration),
    /// Those that are ours by the server's books.
    Own,
}

/// Whether an entry may have been buried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Burial {
    First,
    /// The one before has failed, as far as we know.
    Repeated,
}

/// An entry that goes to the dead-letter stream.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) id: EntryId,
    pub(super) delivery: Delivery,
    pub(super) reason: DeadReason,
    pub(super) burial: Burial,
}

/// What the group's list says of an entry that is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past {
    /// Deliveries that were counted.
    pub(super) deliveries: u32,
    idle: Duration,
}

impl Past {
    /// How long the entry still has to wait, so that the pause before its retry is kept.
    ///
    /// One that was given back says so by its idle time. One that was left behind by a crash has waited
    /// for its idle time at least.
    pub(super) fn pause_left(self, redelivery: &Redelivery) -> Duration {
        let given_back_for = GIVEN_BACK.saturating_sub(self.idle);
        match self.deliveries {
            _ if given_back_for <= redelivery.longest_pause => given_back_for,
            0 => Duration::ZERO,
            deliveries => redelivery.pause_after(deliveries).saturating_sub(self.idle),
        }
    }
}

/// A way through the pending list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) pending: Pending,
    /// Where to go on; `None` at the oldest.
    pub(super) after: Option<EntryId>,
}

impl Consumer {
    pub(super) fn new(
        connection: Arc<Connection>,
        subscription: &Subscription,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut number = [0; 8];
        entropy.fill(&mut number);
        Self {
            connection,
            stream: subscription.topic.as_str().into(),
            dead_letter: subscription.dead_letter.as_str().into(),
            group: subscription.group.as_str().into(),
            name: format!("{OURS}{:016x}", u64::from_be_bytes(number)).into(),
        }
    }

    async fn query<T: FromRedisValue>(&self, query: &Cmd, effect: Effect) -> Result<T, Failure> {
        converted(self.connection.command(query, effect).await?, Effect::Write)
    }

    async fn call<T: FromRedisValue>(&self, script: &Script, call: &Cmd) -> Result<T, Failure> {
        let answer = self.connection.call(script, call, Effect::Write);
        converted(answer.await?, Effect::Write)
    }

    /// Fixes where the group begins, unless it is known; answers the last entry that it was given.
    pub(super) async fn join(&self, start: &StartAt) -> Result<EntryId, Failure> {
        let (at, beside) = match start {
            StartAt::End => ("$", ""),
            StartAt::Beginning => ("0", ""),
            StartAt::Group(other) => ("$", other.as_str()),
        };
        let mut join = call(&JOIN, &self.stream);
        join.arg(&*self.group).arg(at).arg(beside);
        join.arg(&*self.name).arg(milliseconds(GIVEN_BACK));
        let position: String = self.call(&JOIN, &join).await?;
        position.parse()
    }

    /// Makes the group again that the server has lost, after the last entry that was read.
    ///
    /// In a stream that is new, too, everything is unread.
    pub(super) async fn restore(&self, read_to: EntryId) -> Result<(), Failure> {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&*self.stream).arg(&*self.group);
        match self.last_entry().await? {
            Some(last) if last >= read_to => create.arg(read_to),
            Some(_) | None => create.arg("0"),
        };
        create.arg("MKSTREAM");
        let created: Result<Value, _> = self.query(&create, Effect::Write).await;
        match created {
            Err(failure) if is_refusal(&failure, "BUSYGROUP") => Ok(()),
            created => created.map(drop),
        }
    }

    /// The id of the newest entry; `None` if the stream is empty or does not exist.
    async fn last_entry(&self) -> Result<Option<EntryId>, Failure> {
        let mut newest = cmd("XREVRANGE");
        newest
            .arg(&*self.stream)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1);
        let newest: Vec<Value> = self.query(&newest, Effect::Read).await?;
        let newest = newest.into_iter().next().map_or(Ok(None), Entry::parse)?;
        Ok(newest.map(|entry| entry.id))
    }

    /// Reads entries that nobody of the group was given, and waits for the first one.
    pub(super) async fn read(
        &self,
        connection: &mut Dedicated,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>, Failure> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&*self.group).arg(&*self.name);
        read.arg("COUNT").arg(limit);
        read.arg("BLOCK").arg(milliseconds(wait));
        read.arg("STREAMS").arg(&*self.stream).arg(">");
        let read = connection.command(&read, Effect::Write).await?;
        let streams: Option<Vec<(String, Vec<Value>)>> = converted(read, Effect::Write)?;
        let streams = streams.unwrap_or_default().into_iter();
        let entries = streams.flat_map(|(_, entries)| entries).map(Entry::parse);
        entries.filter_map(Result::transpose).collect()
    }

    /// Finishes entries.
    pub(super) async fn acknowledge(&self, ids: &[EntryId]) -> Result<(), Failure> {
        for ids in ids.chunks(MAX_PER_COMMAND) {
            let mut acknowledge = cmd("XACK");
            acknowledge.arg(&*self.stream).arg(&*self.group).arg(ids);
            let _: u64 = self.query(&acknowledge, Effect::Write).await?;
        }
        Ok(())
    }

    /// Keeps entries from being taken over, and stores how often some of them were delivered.
    ///
    /// Answers those that somebody else has by now.
    pub(super) async fn keep(
        &self,
        entries: impl Iterator<Item = (EntryId, Option<u32>)>,
    ) -> Result<Vec<EntryId>, Failure> {
        let held = entries.map(|(id, deliveries)| (id, Duration::ZERO, deliveries));
        self.set_idle(held.collect()).await
    }

    /// Lets the group's next consumer have entries at once: id, pause that is left, deliveries.
    pub(super) async fn give_back(
        &self,
        entries: impl Iterator<Item = (EntryId, Duration, u32)>,
    ) -> Result<(), Failure> {
        let idle = entries.map(|(id, left, deliveries)| {
            let idle = GIVEN_BACK.saturating_sub(left);
            (id, idle, Some(deliveries))
        });
        self.set_idle(idle.collect()).await.map(drop)
    }

    async fn set_idle(
        &self,
        entries: Vec<(EntryId, Duration, Option<u32>)>,
    ) -> Result<Vec<EntryId>, Failure> {
        let mut gone = Vec::new();
        for entries in entries.chunks(MAX_PER_COMMAND) {
            let mut keep = call(&KEEP, &self.stream);
            keep.arg(&*self.group).arg(&*self.name);
            for (id, idle, deliveries) in entries {
                let deliveries = deliveries.map(|number| number.to_string());
                keep.arg(id).arg(milliseconds(*idle));
                keep.arg(deliveries.unwrap_or_default());
            }
            let others: Vec<String> = self.call(&KEEP, &keep).await?;
            for id in others {
                gone.push(id.parse()?);
            }
        }
        Ok(gone)
    }

    /// Moves an entry to the dead-letter stream, unless another consumer has it by now.
    pub(super) async fn bury(&self, letter: &Letter) -> Result<(), Failure> {
        let Letter {
            id,
            delivery,
            reason,
            burial,
        } = letter;
        let mut bury = BURY.call(18, delivery.payload.len());
        bury.arg(2).arg(&*self.stream).arg(&*self.dead_letter);
        bury.arg(&*self.group).arg(&*self.name).arg(id);
        bury.arg(match burial {
            Burial::First => "first",
            Burial::Repeated => "repeated",
        });
        bury.arg(&entry::fields(&delivery.key, &delivery.payload));
        bury.arg(REASON).arg(reason.to_string());
        bury.arg(TOPIC).arg(delivery.topic.as_str());
        bury.arg(OFFSET).arg(id);
        bury.arg(DELIVERIES).arg(delivery.attempt);
        let buried: bool = self.call(&BURY, &bury).await?;
        if !buried {
            tracing::warn!(entry = %id, group = &*self.group, "dead letter left to another or buried before");
        }
        Ok(())
    }

    /// Takes pending entries after a place in the list, oldest first, and answers where to go on.
    ///
    /// Each comes with what was known of it before. Those that are in hand are left alone.
    pub(super) async fn take(
        &self,
        scan: Scan,
        limit: usize,
        is_in_hand: impl Fn(&EntryId) -> bool + Send + Sync,
    ) -> Result<(Vec<(Entry, Past)>, Option<Scan>), Failure> {
        let page = self.pending(scan).await?;
        let is_last = page.len() < MAX_PER_COMMAND;
        let seen_to = page.last().map(|(id, _)| *id);
        let mut wanted = page.into_iter().filter(|(id, _)| !is_in_hand(id));
        let now: BTreeMap<EntryId, Past> = wanted.by_ref().take(limit).collect();
        let after = match wanted.next() {
            Some(_) => now.last_key_value().map(|(id, _)| *id),
            None if is_last => None,
            None => seen_to,
        };
        let taken = self.claim(scan.pending, now).await?;
        Ok((
            taken,
            after.map(|id| Scan {
                after: Some(id),
                ..scan
            }),
        ))
    }

    /// A page of the pending list.
    async fn pending(&self, scan: Scan) -> Result<Vec<(EntryId, Past)>, Failure> {
        let mut list = cmd("XPENDING");
        list.arg(&*self.stream).arg(&*self.group);
        if let Pending::Idle(idle) = scan.pending {
            list.arg("IDLE").arg(milliseconds(idle));
        }
        let from = scan.after.map(|id| format!("({id}"));
        list.arg(from.as_deref().unwrap_or("-"));
        list.arg("+").arg(MAX_PER_COMMAND);
        if scan.pending == Pending::Own {
            list.arg(&*self.name);
        }
        let rows: Vec<(String, String, u64, u64)> = self.query(&list, Effect::Read).await?;
        let rows = rows.into_iter().map(|(id, _, idle, deliveries)| {
            let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX);
            let idle = Duration::from_millis(idle);
            Ok((id.parse()?, Past { deliveries, idle }))
        });
        rows.collect()
    }

    async fn claim(
        &self,
        pending: Pending,
        mut wanted: BTreeMap<EntryId, Past>,
    ) -> Result<Vec<(Entry, Past)>, Failure> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let idle = match pending {
            Pending::Idle(idle) => idle,
            Pending::Own => Duration::ZERO,
        };
        let ids: Vec<EntryId> = wanted.keys().copied().collect();
        let mut claim = cmd("XCLAIM");
        claim.arg(&*self.stream).arg(&*self.group).arg(&*self.name);
        claim.arg(milliseconds(idle)).arg(&ids);
        let claimed: Vec<Value> = self.query(&claim, Effect::Write).await?;
        let mut taken = Vec::with_capacity(claimed.len());
        for entry in claimed {
            if let Some(entry) = Entry::parse(entry)?
                && let Some(past) = wanted.remove(&entry.id)
            {
                taken.push((entry, past));
            }
        }
        for missed in wanted.into_keys() {
            self.finish_if_removed(missed).await?;
        }
        Ok(taken)
    }

    /// Finishes an entry that was removed from the stream while it was pending: nobody can read it.
    ///
    /// One that is still there was faster taken by somebody else.
    async fn finish_if_removed(&self, id: EntryId) -> Result<(), Failure> {
        let mut look = cmd("XRANGE");
        look.arg(&*self.stream).arg(id).arg(id);
        let found: Vec<Value> = self.query(&look, Effect::Read).await?;
        if found.is_empty() {
            tracing::error!(
                stream = &*self.stream, group = &*self.group, entry = %id,
                "unfinished event was removed from its stream"
            );
            self.acknowledge(&[id]).await?;
        }
        Ok(())
    }

    /// Removes consumers of ours that have nothing and have not been seen for so long.
    pub(super) async fn remove_others(&self, unseen: Duration) -> Result<(), Failure> {
        self.remove(OURS, unseen).await
    }

    /// Removes this consumer, if it has nothing.
    pub(super) async fn leave(&self) -> Result<(), Failure> {
        self.remove(&self.name, Duration::ZERO).await
    }

    async fn remove(&self, names: &str, unseen: Duration) -> Result<(), Failure> {
        let mut leave = call(&LEAVE, &self.stream);
        leave.arg(&*self.group).arg(names).arg(milliseconds(unseen));
        let removed: u64 = self.call(&LEAVE, &leave).await?;
        tracing::debug!(
            group = &*self.group,
            removed,
            "consumers without work removed"
        );
        Ok(())
    }

    /// Removes what every group of the stream has finished, but for the newest entries.
    pub(super) async fn trim(&self, keep: u64) -> Result<(), Failure> {
        let mut trim = call(&TRIM, &self.stream);
        let removed: u64 = self.call(&TRIM, trim.arg(keep)).await?;
        tracing::debug!(stream = &*self.stream, removed, "finished entries removed");
        Ok(())
    }
}

/// A call of a script on the stream alone.
fn call(script: &Script, stream: &str) -> Cmd {
    let mut call = script.call(16, 256);
    call.arg(1).arg(stream);
    call
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the server refused with this code, in a command or within a script.
pub(super) fn is_refusal(failure: &Failure, code: &str) -> bool {
    let Failure::Refused { error, .. } = failure else {
        return false;
    };
    // Redis before 7.0 names the code of a script's command in the text.
    error.code() == code || error.details().is_some_and(|text| text.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_a_retry_is_kept_by_whoever_takes_over() {
        let redelivery = Redelivery {
            longest_pause: Duration::from_secs(30),
            ..Redelivery::default()
        };
        const DAY: u64 = 24 * 60 * 60;
        for (deliveries, idle, expected) in [
            // Given back just now, a while ago, and long ago; even without a delivery that counts.
            (9, DAY - 30, 30),
            (9, DAY - 12, 12),
            (0, DAY - 2, 2),
            (9, DAY, 0),
            (9, 2 * DAY, 0),
            // Left behind: the pause after so many deliveries, but for the time that is over.
            (1, 0, 1),
            (5, 4, 12),
            (9, 10, 20),
            (9, 31, 0),
            (0, 3, 0),
        ] {
            let idle = Duration::from_secs(idle);
            let left = Past { deliveries, idle }.pause_left(&redelivery);
            assert_eq!(left.as_secs(), expected, "{deliveries} after {idle:?}");
        }
    }
}
