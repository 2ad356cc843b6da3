//! Lets one side follow the other, beside the requests.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::Notify;

use super::marker::{DIRTY, REVERSE, key_of};
use super::sides::Sides;
use super::sync::target_of;
use super::{Control, Side, Stage};
use crate::background::{Background, Stop};
use crate::memory::lock;
use crate::ports::{Key, Kind, PortError, Stored};

/// Most records that wait to be followed; what is beyond is found by its mark.
const MOST_WAITING: usize = 8192;

/// Records that are followed at once.
const AT_ONCE: usize = 32;

/// Time between two looks for marks that nobody follows.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// Marks in one page of such a look.
const SWEEP_PAGE: usize = 256;

/// Follows writes as they come, and marks that somebody has left.
#[derive(Debug)]
pub(super) struct Mirror {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sides: Arc<Sides>,
    waiting: Mutex<BTreeSet<Key>>,
    arrived: Notify,
}

impl Mirror {
    pub(super) fn new(sides: Arc<Sides>) -> Self {
        Self {
            shared: Arc::new(Shared {
                sides,
                waiting: Mutex::default(),
                arrived: Notify::new(),
            }),
        }
    }

    /// A record was written.
    pub(super) fn follow(&self, key: Key) {
        let mut waiting = lock(&self.shared.waiting);
        if waiting.len() < MOST_WAITING {
            waiting.insert(key);
            self.shared.arrived.notify_one();
        }
    }

    pub(super) fn start(&self) -> Background {
        let shared = Arc::clone(&self.shared);
        Background::spawn("mirror", move |stop| shared.run(stop))
    }
}

impl Shared {
    async fn run(self: Arc<Self>, stop: Stop) {
        let followers = join_all((0..AT_ONCE).map(|_| self.follow_all(stop.clone())));
        join(followers, self.sweep_all(stop.clone())).await;
    }

    async fn follow_all(&self, mut stop: Stop) {
        while !stop.is_raised() {
            match self.next() {
                Some(key) => self.sides.forward_quietly(key).await,
                None => {
                    stop.or(self.arrived.notified()).await;
                }
            }
        }
    }

    async fn sweep_all(&self, mut stop: Stop) {
        while !stop.is_raised() {
            for kind in [DIRTY, REVERSE] {
                match stop.or(self.sides.repair(kind, None)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "marks were not looked for"),
                    None => return,
                }
            }
            stop.or(tokio::time::sleep(SWEEP_EVERY)).await;
        }
    }

    fn next(&self) -> Option<Key> {
        let mut waiting = lock(&self.waiting);
        waiting.pop_first()
    }
}

impl Sides {
    async fn forward_quietly(&self, key: Key) {
        if let Err(error) = self.forward(&key).await {
            tracing::debug!(%error, %key, "the new side does not follow yet; the mark stays");
        }
    }

    /// Copies every record with a mark, and answers how many there were.
    ///
    /// With a control record, only those that wait for a handoff by it.
    ///
    /// # Errors
    /// As the old side; what fails for one record is left for the next time.
    pub(super) async fn repair(
        &self,
        marks: Kind,
        waiting: Option<&Control>,
    ) -> Result<u64, PortError> {
        let mut from = None;
        let mut found = 0;
        loop {
            let page = self.old.scan(marks, from, SWEEP_PAGE).await?;
            for (mark, stored) in &page.entries {
                let Some(key) = self.marked(mark, stored) else {
                    continue;
                };
                if waiting.is_none_or(|control| control.stage_of(&key) == Stage::Handoff) {
                    found += 1;
                    self.repair_one(mark, &key).await;
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(found);
            }
        }
    }

    /// The record that a mark names, unless it is `off`: then nothing follows, and the mark waits.
    pub(super) fn marked(&self, mark: &Key, stored: &Stored) -> Option<Key> {
        let key = key_of(mark, &stored.value, self.kinds)?;
        let stage = self.member.control().map(|control| control.stage_of(&key));
        (stage != Some(Stage::Off)).then_some(key)
    }

    async fn repair_one(&self, mark: &Key, key: &Key) {
        let copied = match target_of(mark) {
            Side::New => self.forward(key).await,
            Side::Old => self.backward(key).await,
        };
        match copied {
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, %key, "a mark stays"),
        }
    }
}
