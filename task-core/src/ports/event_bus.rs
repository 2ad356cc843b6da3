//! The event bus port: at-least-once delivery of opaque events to named groups.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BusCapability, CapabilitySet, ErrorKind, PortError};
use crate::background::Background;

/// A named stream of events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Box<str>);

impl Topic {
    /// Names a topic.
    #[must_use]
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A named consumer: each group hears every event, its position is its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(Box<str>);

impl Group {
    /// Names a group.
    #[must_use]
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event on its way to a topic. The payload is the whole envelope, built by the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it goes.
    pub topic: Topic,
    /// Events of one key keep their order.
    pub key: Box<str>,
    /// The envelope, byte for byte as every subscriber receives it; at most
    /// [`MAX_PAYLOAD_BYTES`](Self::MAX_PAYLOAD_BYTES).
    pub payload: Bytes,
}

impl Event {
    /// Largest payload, in bytes.
    pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

    /// Refuses an event beyond the port's limits.
    ///
    /// # Errors
    /// `Invalid`, with the limit and the size.
    pub fn check_limits(
        &self,
        backend: &'static str,
        operation: &'static str,
    ) -> Result<(), PortError> {
        if self.payload.len() <= Self::MAX_PAYLOAD_BYTES {
            return Ok(());
        }
        Err(
            PortError::new(ErrorKind::Invalid, backend, operation).context(format!(
                "an event of {} bytes exceeds the limit of {} bytes",
                self.payload.len(),
                Self::MAX_PAYLOAD_BYTES
            )),
        )
    }
}

/// An event as a group receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The topic it came by.
    pub topic: Topic,
    /// The key it was published with; empty where a foreign publisher gave none.
    pub key: Box<str>,
    /// The payload, byte for byte as it was published.
    pub payload: Bytes,
    /// 1 at the first delivery to this group, as far as the backend counts.
    pub attempt: u32,
}

impl Delivery {
    /// The event that carries this delivery to another topic, its dead-letter topic for example.
    #[must_use]
    pub fn into_event(self, topic: Topic) -> Event {
        Event {
            topic,
            key: self.key,
            payload: self.payload,
        }
    }
}

/// Why a handler drops a delivery: one line for people, at most [`MAX_BYTES`](Self::MAX_BYTES) long.
///
/// It stands in log lines and beside dead letters, so it names what is wrong and repeats no payload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DropReason(Box<str>);

impl DropReason {
    /// Longest reason, in bytes; a longer one is cut off.
    pub const MAX_BYTES: usize = 256;

    /// Says why; control characters become `?`.
    #[must_use]
    pub fn new(reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        let mut end = reason.len().min(Self::MAX_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self(reason[..end].replace(char::is_control, "?").into())
    }

    /// The reason.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a handler says of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Done: not delivered to this group again.
    Ack,
    /// Not now: delivered again after a pause, and dead-lettered after too many attempts.
    Retry,
    /// Not now, for a reason that is not this event's: delivered again after this pause, kept within
    /// the shortest and the longest one of the [`Redelivery`]. It does not count as a delivery.
    Postpone(Duration),
    /// Never, and why: dead-lettered at once.
    Drop(DropReason),
}

impl Answer {
    /// Drops a delivery for this reason.
    #[must_use]
    pub fn dropped(reason: impl fmt::Display) -> Self {
        Self::Drop(DropReason::new(reason))
    }
}

/// Handles deliveries of one subscription.
///
/// Deliveries of one key come one after the other; those of different keys may overlap.
#[async_trait]
pub trait EventHandler: Debug + Send + Sync + 'static {
    /// Handles one delivery. A panic counts as [`Answer::Retry`].
    async fn handle(&self, delivery: &Delivery) -> Answer;
}

/// Where a group begins that the bus has not seen before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAt {
    /// After the events that were published so far.
    End,
    /// With the oldest event that the bus still has.
    Beginning,
    /// Where this other group stands, or at the end if the bus does not know that one either. The
    /// other group stays as it is.
    Group(Group),
}

/// When a delivery is tried again, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivery {
    /// Deliveries of one event before it is dead-lettered, at least 1.
    pub max_deliveries: u32,
    /// Pause before the second delivery; it doubles each time.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Redelivery {
    /// The pause after so many deliveries, without jitter.
    #[must_use]
    pub fn pause_after(&self, deliveries: u32) -> Duration {
        let doublings = deliveries.saturating_sub(1).min(31);
        self.first_pause
            .saturating_mul(1 << doublings)
            .min(self.longest_pause)
    }
}

impl Default for Redelivery {
    /// 20 deliveries within about 13 minutes: 1 s, 2 s, 4 s and so on up to 60 s apart.
    fn default() -> Self {
        Self {
            max_deliveries: 20,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What a group wants to hear, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: Group,
    /// Where a new group begins.
    pub start: StartAt,
    /// How failures are tried again.
    pub redelivery: Redelivery,
    /// Where events go that are dropped or fail too often.
    pub dead_letter: Topic,
    /// Most deliveries handled at once, at least 1.
    pub concurrency: usize,
}

impl Subscription {
    /// A subscription from the end of a topic, with the default redelivery and the dead-letter topic
    /// `<topic>.dead`.
    #[must_use]
    pub fn new(topic: Topic, group: Group) -> Self {
        let dead_letter = Topic::new(format!("{topic}.dead"));
        Self {
            topic,
            group,
            start: StartAt::End,
            redelivery: Redelivery::default(),
            dead_letter,
            concurrency: 32,
        }
    }
}

/// Carries events from publishers to groups.
///
/// # Contract
/// Delivery is at least once: a handler sees an event again after a crash, and drops what it knows.
///
/// - **E1** Every group that was subscribed before an event was published MUST receive it, with
///   topic, key and payload unchanged. (`every_group_receives_every_event_unchanged`)
/// - **E2** An acknowledged delivery MUST NOT come again while the subscription lives.
///   (`an_acknowledged_event_does_not_come_again`)
/// - **E3** `Retry`, and a panic of the handler, MUST bring the event again with a higher attempt, and
///   not before the pause of the [`Redelivery`] is over.
///   (`a_retried_event_comes_again`, `a_panicking_handler_counts_as_retry`)
/// - **E4** A failing event, and a handler call that takes long, MUST NOT hold back events of other
///   keys, while other calls are allowed. (`a_failing_event_does_not_block_other_keys`,
///   `a_slow_handler_call_does_not_hold_back_other_keys`)
/// - **E5** A new group MUST begin where its [`StartAt`] says; a known group MUST go on where it
///   stopped. (`a_new_group_starts_where_it_is_told`, `a_group_goes_on_where_it_stopped`)
/// - **E6** When `stop` of the subscription has returned, no handler call MUST be running, and what
///   was not answered MUST come again. (`a_stopped_subscription_is_quiet`)
/// - **E7** An event beyond [`Event::MAX_PAYLOAD_BYTES`] MUST be refused as `Invalid`, and the
///   largest allowed one delivered. (`event_limits_are_refused_and_the_largest_is_delivered`)
///
/// With `ordered per key`:
/// - **E8** Events of one key, each published after the one before was accepted, MUST be handled in
///   that order and one at a time; a `Retry` or a `Postpone` MUST hold back the later ones of its key.
///   (`events_of_one_key_keep_their_order`, `a_retry_holds_back_later_events_of_its_key`,
///   `a_postponed_event_holds_back_later_events_of_its_key`)
///
/// With `dead letter`:
/// - **E9** `Drop`, and `Retry` at the last allowed delivery, MUST move the event to the dead-letter
///   topic, payload and key unchanged, and not deliver it again. One line in the log, and the letter
///   where it has room beside the event, say why. (`a_dropped_event_is_dead_lettered`,
///   `an_event_that_fails_too_often_is_dead_lettered`)
///
/// With `durable`:
/// - **E10** An accepted event, a group's position and its retries MUST survive a restart of the bus.
///   (`events_and_positions_survive_a_restart`)
///
/// With `competing consumers`:
/// - **E11** Subscribers of one group MUST share its events, each handled by one of them; without the
///   capability a second subscriber MUST be refused as `Conflict`. (`subscribers_of_one_group_share_or_conflict`)
///
/// Of every bus again:
/// - **E12** `Postpone` MUST bring the event again, and MUST NOT count as a delivery: the attempt does
///   not rise by it, and however often it comes it leads to no dead letter.
///   (`a_postponed_event_comes_again_and_is_not_counted`)
///
/// # Errors
/// `Unavailable`, `Timeout`, `Denied`, `Throttled` as the backend is. A publication whose effect is
/// not known says so; publishing it again is safe because ids are deterministic.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EventBus: Debug + Send + Sync + 'static {
    /// What this backend can do. It does not change while the adapter lives.
    fn capabilities(&self) -> CapabilitySet<BusCapability>;

    /// Hands an event to the bus and returns once the bus has accepted it.
    async fn publish(&self, event: &Event) -> Result<(), PortError>;

    /// Begins to deliver a topic to a group and returns once its position is fixed.
    ///
    /// Stop the returned task to end the subscription; the group keeps its position.
    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError>;

    /// Says whether the backend can be reached and works.
    async fn check(&self) -> Result<(), PortError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_limited_length() {
        let long = format!("a\nb{}", "\u{e4}".repeat(DropReason::MAX_BYTES));
        let reason = DropReason::new(long);
        assert!(reason.as_str().starts_with("a?b\u{e4}"), "{reason}");
        assert_eq!(reason.as_str().len(), DropReason::MAX_BYTES - 1);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let redelivery = Redelivery::default();
        let seconds = |n| redelivery.pause_after(n).as_secs();
        assert_eq!([seconds(1), seconds(2), seconds(6)], [1, 2, 32]);
        assert_eq!([seconds(7), seconds(u32::MAX)], [60, 60]);
    }
}
