//! The notifier that is two of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

use super::sides::BACKEND;
use super::{Bucket, Member, MovedCall, NotifierStage, Recorder, Side};
use crate::background::{Background, Stop};
use crate::ports::{
    ErrorKind, Key, Kind, Notification, Notifier, PortError, PutOptions, Retry, StateCapability,
    StateStore, WriteMode,
};

/// Where it is recorded by which side a notification is sent, on the old side.
const SIDES: Kind = Kind::new("notifier");

/// How long that is remembered: longer than any event is delivered again, and than it is known as handled.
const SIDE_KEPT: Duration = Duration::from_secs(8 * 24 * 3600);

/// Pause after a side could not be recorded, unless the store asks for another one.
const RECORD_PAUSE: Duration = Duration::from_secs(5);

/// Longest time for one look at the new side.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// Shortest time between two looks at the new side.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Namespace of the records of sides.
const SIDE_NAMESPACE: Uuid = Uuid::from_u128(0x8f1c_52a7_3b0d_5e69_9d24_71c0_e86a_b3f5);

/// A [`Notifier`] on two sides, each notification on one of them.
///
/// The stage of its idempotency key says which, and that is recorded before the first attempt. Every later attempt, of
/// any replica and in any stage, goes the same way, so no notification is sent by both. One whose side cannot
/// be recorded is not sent, and may be tried again.
///
/// # Shadow
/// While a notification goes by the old side, the new one is asked, beside the request and at most once a
/// second, whether it [could](Notifier::check) reach its receiver; that is what budgets and reports see of it. More
/// cannot be compared at this port: both sides are handed the same [`Notification`], built once by the core, and
/// what each makes of it on the wire is its adapter's affair.
#[derive(Debug)]
pub struct ParallelNotifier {
    old: Arc<dyn Notifier>,
    new: Arc<dyn Notifier>,
    records: Arc<dyn StateStore>,
    member: Arc<Member>,
    recorder: Arc<Recorder>,
    rehearse: Arc<Notify>,
}

/// By which side a notification is sent, for good.
#[derive(Debug, Serialize, Deserialize)]
struct SideRecord {
    side: Side,
}

impl ParallelNotifier {
    /// A notifier on two sides, moved by what this replica has adopted; `records` is the old side's store.
    ///
    /// # Errors
    /// `Unsupported`, naming what the store would have to be able to do.
    pub fn new(
        old: Arc<dyn Notifier>,
        new: Arc<dyn Notifier>,
        records: Arc<dyn StateStore>,
        member: Arc<Member>,
        recorder: Arc<Recorder>,
    ) -> Result<Self, PortError> {
        let can = records.capabilities();
        can.require(StateCapability::ConditionalWrites, "old side", "open")?;
        can.require(StateCapability::Ttl, "old side", "open")?;
        Ok(Self {
            old,
            new,
            records,
            member,
            recorder,
            rehearse: Arc::default(),
        })
    }

    /// Looks at the new side in the background, while notifications go by the old one.
    pub fn start(&self) -> Background {
        let rehearsal = Rehearsal {
            new: Arc::clone(&self.new),
            recorder: Arc::clone(&self.recorder),
            wanted: Arc::clone(&self.rehearse),
        };
        Background::spawn("notifier rehearsal", |stop| rehearsal.run(stop))
    }

    /// The side of a notification, recorded now if it is the first attempt.
    ///
    /// # Errors
    /// `Unavailable` and not made when it cannot be recorded; `Corrupt` when what is recorded cannot be read.
    async fn side_of(&self, idempotency_key: &str, wanted: Side) -> Result<Side, PortError> {
        let id = Uuid::new_v5(&SIDE_NAMESPACE, idempotency_key.as_bytes());
        let key = Key::new(SIDES, id.to_string());
        let json = serde_json::to_vec(&SideRecord { side: wanted }).expect("a word is JSON");
        let create = PutOptions {
            mode: WriteMode::Create,
            ttl: Some(SIDE_KEPT),
        };
        match self.records.put(&key, Bytes::from(json), create).await {
            Ok(_) => return Ok(wanted),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(unrecorded(error)),
        }
        let found = self.records.get(&key).await.map_err(unrecorded)?;
        let Some(found) = found else {
            let error = PortError::new(ErrorKind::NotFound, BACKEND, "notify");
            return Err(unrecorded(error.context(format!("{key} has just ended"))));
        };
        let record = serde_json::from_slice::<SideRecord>(&found.value);
        record.map(|record| record.side).map_err(|error| {
            PortError::new(ErrorKind::Corrupt, BACKEND, "notify")
                .context(format!("{key} does not name a side"))
                .caused_by(error)
        })
    }

    /// Whether every notification goes by the new side.
    fn is_complete(&self) -> bool {
        self.member.pin().is_ok_and(|pin| {
            let moved = pin.control().notifier.reached(NotifierStage::New);
            moved == Bucket::COUNT
        })
    }
}

/// The receiver was not asked, whatever is wrong with the record.
fn unrecorded(error: PortError) -> PortError {
    let pause = match error.retryable() {
        Retry::After(pause) => pause,
        Retry::Maybe | Retry::Never => RECORD_PAUSE,
    };
    PortError::new(ErrorKind::Unavailable, BACKEND, "notify")
        .context("the side of this notification cannot be recorded")
        .retry(Retry::After(pause))
        .not_made()
        .caused_by(error)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Notifier for ParallelNotifier {
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        let pin = self.member.pin()?;
        let key = &notification.idempotency_key;
        let stage = pin.control().notifier_stage_of(key);
        let wanted = match stage {
            NotifierStage::Old => Side::Old,
            NotifierStage::New => Side::New,
        };
        let side = self.side_of(key, wanted).await?;
        let notifier = match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        };
        if stage == NotifierStage::Old {
            self.rehearse.notify_one();
        }
        let sending = notifier.notify(notification);
        self.recorder
            .time(MovedCall::Notify, side, stage, sending)
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        match self.is_complete() {
            true => self.new.check().await,
            false => self.old.check().await,
        }
    }
}

/// Asks the new side whether it could send, while notifications go by the old one.
struct Rehearsal {
    new: Arc<dyn Notifier>,
    recorder: Arc<Recorder>,
    wanted: Arc<Notify>,
}

impl Rehearsal {
    async fn run(self, mut stop: Stop) {
        while !stop.is_raised() {
            if stop.or(self.wanted.notified()).await.is_some() {
                stop.or(self.look()).await;
                stop.or(tokio::time::sleep(CHECK_EVERY)).await;
            }
        }
    }

    async fn look(&self) {
        let looking = async {
            match timeout(CHECK_LIMIT, self.new.check()).await {
                Ok(checked) => checked,
                Err(_) => Err(PortError::new(ErrorKind::Timeout, BACKEND, "check")),
            }
        };
        let stage = NotifierStage::Old;
        let checked = self
            .recorder
            .time(MovedCall::Notify, Side::New, stage, looking)
            .await;
        if let Err(error) = checked {
            tracing::debug!(%error, "the new side could not send notifications now");
        }
    }
}
