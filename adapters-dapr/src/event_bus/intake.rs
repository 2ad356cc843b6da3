//! Where deliveries of the sidecar come in, by stream or by callback, and where their answers go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dapr::dapr::proto::runtime::v1::topic_event_response::TopicEventResponseStatus;
use task_core::ports::Topic;
use tokio::sync::{mpsc, oneshot};

use crate::sidecar::TraceParent;

/// What the sidecar is told of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Done with.
    Success,
    /// To be delivered again.
    Retry,
    /// Nothing that could ever be handled.
    Drop,
}

impl Reply {
    pub(super) fn status(self) -> TopicEventResponseStatus {
        match self {
            Self::Success => TopicEventResponseStatus::Success,
            Self::Retry => TopicEventResponseStatus::Retry,
            Self::Drop => TopicEventResponseStatus::Drop,
        }
    }

    /// As a callback answers it.
    pub(crate) fn as_str(self) -> &'static str {
        self.status().as_str_name()
    }
}

/// One delivery of the sidecar; it waits until it is answered.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Bytes,
    pub(crate) answer: Answerer,
    /// The trace that it belongs to, if who delivers it said so.
    pub(crate) trace: Option<TraceParent>,
}

/// Where the answer of one delivery goes.
#[derive(Debug)]
pub(crate) enum Answerer {
    /// To the stream that it came by, with its id there.
    Stream(String, mpsc::UnboundedSender<(String, Reply)>),
    /// To the callback that waits for it.
    Callback(oneshot::Sender<Reply>),
    /// Nowhere: it was given before.
    Given,
}

impl Answerer {
    /// Answers; if nobody waits any more, the sidecar delivers it again.
    pub(super) fn answer(self, reply: Reply) {
        match self {
            Self::Stream(id, replies) => drop(replies.send((id, reply))),
            Self::Callback(waiting) => drop(waiting.send(reply)),
            Self::Given => {}
        }
    }

    /// Answers now, and not again.
    pub(super) fn now(self, reply: Reply) -> Self {
        self.answer(reply);
        Self::Given
    }
}

/// The running subscriptions of a bus, by topic.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_topic: HashMap<Topic, Vec<(u64, mpsc::Sender<Incoming>)>>,
    next: u64,
}

/// How many subscribers of a group there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    Competing,
    Alone,
}

/// The place of one subscriber in the table, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    subscribers: Arc<Subscribers>,
    topic: Topic,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.subscribers.table();
        if let Some(all) = table.by_topic.get_mut(&self.topic) {
            all.retain(|(number, _)| *number != self.number);
            if all.is_empty() {
                table.by_topic.remove(&self.topic);
            }
        }
    }
}

impl Subscribers {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; `None` if another subscriber has the topic for itself.
    pub(super) fn join(
        self: &Arc<Self>,
        topic: &Topic,
        sharing: Sharing,
        incoming: mpsc::Sender<Incoming>,
    ) -> Option<Place> {
        let mut table = self.table();
        let number = table.next;
        let all = table.by_topic.entry(topic.clone()).or_default();
        if sharing == Sharing::Alone && !all.is_empty() {
            return None;
        }
        all.push((number, incoming));
        table.next += 1;
        Some(Place {
            subscribers: Arc::clone(self),
            topic: topic.clone(),
            number,
        })
    }

    /// The topics that somebody subscribes to, in order.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<Topic> = self.table().by_topic.keys().cloned().collect();
        topics.sort();
        topics
    }

    /// Hands a message to a subscriber of its topic and waits for what becomes of it.
    ///
    /// Without a subscriber it is to come again: it may be that one is about to start, or to stop.
    pub(crate) async fn deliver(
        &self,
        topic: &Topic,
        message: Bytes,
        trace: Option<TraceParent>,
    ) -> Reply {
        let subscriber = {
            let table = self.table();
            let all = table.by_topic.get(topic);
            all.and_then(|all| all.last())
                .map(|(_, sender)| sender.clone())
        };
        let Some(subscriber) = subscriber else {
            tracing::warn!(%topic, "an event came by callback, and nobody subscribes to its topic");
            return Reply::Retry;
        };
        let (sender, answer) = oneshot::channel();
        let answerer = Answerer::Callback(sender);
        let incoming = Incoming {
            message,
            answer: answerer,
            trace,
        };
        if subscriber.send(incoming).await.is_err() {
            return Reply::Retry;
        }
        answer.await.unwrap_or(Reply::Retry)
    }
}
