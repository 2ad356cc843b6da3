//! Notifies the world of completed tasks, once for each completion.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::{GroupStart, IncomingEvent};
use crate::domain::EventType;
use crate::ports::{
    Answer, Clock, Delivery, ErrorKind, EventHandler, Group, Key, Kind, Notification, Notifier,
    Outcome, PortError, PutOptions, Retry, StateCapability, StateStore, SystemClock,
};

/// How long the id of a finished event is remembered. Longer than any redelivery takes.
pub(crate) const SEEN_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Notified events whose marks are not stored yet. Of more than that, one may be notified again.
const MAX_UNMARKED: usize = 16_384;

/// Pause after the store of the marks has failed, unless it asks for another one.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// Pause after the receiver has let nobody in: what heals that is somebody's doing.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

/// Namespace of the marks of finished events.
const SEEN_NAMESPACE: Uuid = Uuid::from_u128(0x51d0_9a3e_7b61_5c44_8d0e_2f8a_6f0b_9c13);

/// Handles task events: sends a notification for each `task.completed`.
///
/// An event that was handled is marked *after* the notification was accepted, so that a crash in
/// between repeats it, with the same idempotency key, rather than losing it. While the store refuses the
/// mark, as a full Redis does, only the mark is tried again. Only ids that were seen
/// are dropped: an older revision may be the completion of a task that was reopened since.
#[derive(Debug)]
pub struct CompletionNotifier {
    group: Group,
    store: Arc<dyn StateStore>,
    notifier: Arc<dyn Notifier>,
    start: Option<GroupStart>,
    clock: Arc<dyn Clock>,
    unmarked: Unmarked,
    /// Whether the receiver has accepted something since it denied something.
    accepts: AtomicBool,
}

impl CompletionNotifier {
    /// A handler for a group, with its marks in a store.
    ///
    /// Both ports are expected behind [a layer](crate::layer), which tells of their outages: here a
    /// failure that is tried again is logged at `debug`.
    #[must_use]
    pub fn new(group: Group, store: Arc<dyn StateStore>, notifier: Arc<dyn Notifier>) -> Self {
        Self {
            group,
            store,
            notifier,
            start: None,
            clock: Arc::new(SystemClock),
            unmarked: Unmarked::default(),
            accepts: AtomicBool::new(false),
        }
    }

    /// Takes the time, by which events expire, from another clock than the system's.
    #[must_use]
    pub fn timed_by(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Takes what was published before the group began for handled.
    ///
    /// For a bus that delivers its history to a new group.
    #[must_use]
    pub fn since(self, start: GroupStart) -> Self {
        let start = Some(start);
        Self { start, ..self }
    }

    fn is_history(&self, event: &IncomingEvent) -> bool {
        match (self.start, event.time) {
            (Some(start), Some(time)) => start.is_history(time),
            (Some(_), None) | (None, _) => false,
        }
    }

    /// Notifies, unless this event was handled before.
    async fn completed(&self, event: &IncomingEvent) -> Result<(), Failed> {
        let id = self.mark_of(event);
        let mark = Key::new(Kind::SEEN, id.to_string());
        if !self.unmarked.has(id) {
            let seen = self.store.get(&mark).await.map_err(Failed::Store)?;
            if seen.is_some() {
                tracing::debug!(event_id = event.id, "event was handled before");
                return Ok(());
            }
            let notification = notification_of(event);
            let notified = self.notifier.notify(&notification).await;
            notified.map_err(|error| self.not_notified(error))?;
            self.accepts.store(true, Ordering::Relaxed);
            // Before the mark, which may be given up as well as refused.
            self.unmarked.insert(id);
            tracing::info!("Notification sent for task {}", event.task_id);
        }
        let ttl = self.store.capabilities().has(StateCapability::Ttl);
        let options = PutOptions {
            ttl: ttl.then_some(SEEN_TTL),
            ..PutOptions::default()
        };
        let marked = self.store.put(&mark, Bytes::from_static(b"{}"), options);
        marked.await.map_err(Failed::Store)?;
        self.unmarked.remove(id);
        Ok(())
    }

    /// A receiver that denies everything says nothing of this event; one that accepts others does.
    fn not_notified(&self, error: PortError) -> Failed {
        let is_denied = error.kind() == ErrorKind::Denied;
        match is_denied && !self.accepts.swap(false, Ordering::Relaxed) {
            true => Failed::ShutOut(error),
            false => Failed::Notifier(error),
        }
    }

    fn mark_of(&self, event: &IncomingEvent) -> Uuid {
        let name = format!("{}\n{}\n{}", self.group, event.source, event.id);
        Uuid::new_v5(&SEEN_NAMESPACE, name.as_bytes())
    }
}

/// Events that were notified here and are not marked yet.
#[derive(Debug, Default)]
struct Unmarked(Mutex<HashSet<Uuid>>);

impl Unmarked {
    fn has(&self, id: Uuid) -> bool {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.contains(&id)
    }

    fn insert(&self, id: Uuid) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that another replica has marked since are never taken out.
        if ids.len() >= MAX_UNMARKED
            && let Some(any) = ids.iter().next().copied()
        {
            ids.remove(&any);
        }
        ids.insert(id);
    }

    fn remove(&self, id: Uuid) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.remove(&id);
    }
}

/// What kept a completion from being notified or marked.
enum Failed {
    Store(PortError),
    Notifier(PortError),
    /// The receiver lets us in no more, whatever we bring.
    ShutOut(PortError),
}

impl Failed {
    fn log(&self, task_id: &str, attempt: u32) {
        match (self, self.answer()) {
            // Whoever buries the event says so.
            (Self::Notifier(_), Answer::Drop(_)) => {}
            (Self::Store(error), Answer::Retry) => {
                tracing::warn!(%error, task_id, attempt, "notification cannot be marked");
            }
            // The layer around the port tells of an outage, once.
            (Self::Store(error) | Self::Notifier(error) | Self::ShutOut(error), _) => {
                tracing::debug!(%error, task_id, attempt, "notification failed");
            }
        }
    }

    /// What the bus is told: an event is used up by its own failures only.
    fn answer(&self) -> Answer {
        match self {
            // Only the receiver's "never" about this very message is final.
            Self::Notifier(error) if error.kind() == ErrorKind::Invalid => {
                Answer::dropped(format_args!("notification refused: {error}"))
            }
            // The circuit is open, and the receiver was not asked.
            Self::Notifier(error) if error.outcome() == Outcome::NotMade => {
                Answer::Postpone(asked(error).unwrap_or_default())
            }
            Self::ShutOut(error) => Answer::Postpone(asked(error).unwrap_or(DENIED_PAUSE)),
            Self::Store(error) if !is_about_the_mark(error) => {
                Answer::Postpone(asked(error).unwrap_or(STORE_PAUSE))
            }
            Self::Notifier(_) | Self::Store(_) => Answer::Retry,
        }
    }
}

/// Says whether the store works and does not take this mark; anything else is an outage to wait for.
fn is_about_the_mark(error: &PortError) -> bool {
    let about_the_mark = [
        ErrorKind::Invalid,
        ErrorKind::Unsupported,
        ErrorKind::Corrupt,
    ];
    about_the_mark.contains(&error.kind())
}

/// The pause that an error asks for.
fn asked(error: &PortError) -> Option<Duration> {
    match error.retryable() {
        Retry::After(pause) => Some(pause),
        Retry::Maybe | Retry::Never => None,
    }
}

/// What the receiver gets, in this order of fields.
#[derive(Serialize)]
struct CompletedBody<'a> {
    r#type: &'static str,
    task_id: &'a str,
    message: String,
}

fn notification_of(event: &IncomingEvent) -> Notification {
    let body = CompletedBody {
        r#type: "task_completed",
        task_id: &event.task_id,
        message: format!("Task {} has been completed", event.task_id),
    };
    let json = serde_json::to_vec(&body).expect("a notification has only string keys");
    Notification {
        idempotency_key: event.id.as_str().into(),
        body: Bytes::from(json),
    }
}

#[async_trait]
impl EventHandler for CompletionNotifier {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let event = match IncomingEvent::parse(&delivery.payload) {
            Ok(event) => event,
            Err(error) => return Answer::dropped(error),
        };
        if delivery.attempt == 1 {
            tracing::info!(
                "Received event: {} for task {}",
                event.event_type,
                event.task_id
            );
        }
        if event.has_expired(self.clock.now()) {
            tracing::info!(
                event_id = event.id,
                task_id = event.task_id,
                "event has expired"
            );
            return Answer::Ack;
        }
        if self.is_history(&event) {
            tracing::debug!(event_id = event.id, "event is older than the group");
            return Answer::Ack;
        }
        if event.event_type != EventType::Completed.as_str() {
            return Answer::Ack;
        }
        match self.completed(&event).await {
            Ok(()) => Answer::Ack,
            Err(failed) => {
                failed.log(&event.task_id, delivery.attempt);
                failed.answer()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_number_of_unmarked_events_is_remembered_the_newest_among_them() {
        let unmarked = Unmarked::default();
        for number in 0..=MAX_UNMARKED {
            let id = Uuid::from_u128(number as u128);
            unmarked.insert(id);
            assert!(unmarked.has(id), "{number}");
        }
        let known = unmarked.0.lock().expect("nobody panicked").len();
        assert_eq!(known, MAX_UNMARKED);
    }
}
