//! A streaming subscription: the sidecar reads a topic as long as the stream stands.
//!
//! While no stream stands, nothing is read and nothing is a failure: what was published waits in the
//! broker. What was delivered and not answered comes again.

use std::collections::HashMap;
use std::time::Duration;

use dapr::dapr::proto::runtime::v1::subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Request;
use dapr::dapr::proto::runtime::v1::subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Response;
use dapr::dapr::proto::runtime::v1::{
    SubscribeTopicEventsRequestAlpha1, SubscribeTopicEventsRequestInitialAlpha1,
    SubscribeTopicEventsRequestProcessedAlpha1, SubscribeTopicEventsResponseAlpha1,
    TopicEventResponse,
};
use futures_util::{Stream, stream};
use task_core::background::Stop;
use task_core::ports::Topic;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

use super::intake::{Answerer, Incoming, Reply};
use super::publisher::RAW_PAYLOAD;
use crate::error::{Effect, Failure};
use crate::sidecar::{Grpc, Sidecar};

/// Pause before a broken stream is opened again.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// How long the last answers have until the stream is closed: an answer that comes with the end may be lost.
const LINGER: Duration = Duration::from_millis(100);

/// Longest wait for the sidecar to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is subscribed to, on which sidecar.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) sidecar: Sidecar,
    pub(super) pubsub: String,
    pub(super) topic: Topic,
    /// Longest wait for the component to subscribe.
    pub(super) open_timeout: Duration,
}

/// A stream that stands.
#[derive(Debug)]
pub(super) struct Open {
    events: Streaming<SubscribeTopicEventsResponseAlpha1>,
    replies: mpsc::UnboundedSender<(String, Reply)>,
}

impl Source {
    /// Opens a stream; the component has subscribed when it returns.
    ///
    /// The sidecar opens none while it asks the app for its subscriptions, with a pause after each failed attempt and
    /// without a limit for one that is not answered. So the app has to answer requests meanwhile.
    pub(super) async fn open(&self) -> Result<Open, Failure> {
        let initial = SubscribeTopicEventsRequestInitialAlpha1 {
            pubsub_name: self.pubsub.clone(),
            topic: self.topic.as_str().to_owned(),
            metadata: HashMap::from([RAW_PAYLOAD].map(|(n, v)| (n.to_owned(), v.to_owned()))),
            dead_letter_topic: None,
        };
        let (replies, answered) = mpsc::unbounded_channel();
        let requests = requests(initial, answered);
        let opening = async |mut grpc: Grpc| {
            let mut events = grpc.subscribe_topic_events_alpha1(requests).await?;
            match events.get_mut().message().await? {
                Some(_) => Ok(events),
                None => Err(Status::unavailable("the stream ended before it began")),
            }
        };
        let sidecar = &self.sidecar;
        let events = sidecar
            .call_within(self.open_timeout, Effect::Read, opening)
            .await?;
        Ok(Open { events, replies })
    }

    /// Hands on what comes, and opens the stream again whenever it breaks, until it should stop.
    ///
    /// The last stream is answered, so that it can be closed when every answer is given.
    pub(super) async fn run(
        &self,
        mut open: Open,
        incoming: mpsc::Sender<Incoming>,
        mut stop: Stop,
    ) -> Option<Open> {
        loop {
            let broken = stop.or(open.pump(&incoming)).await;
            let Some(status) = broken else {
                return Some(open);
            };
            let error = Failure::status(status, Effect::Read).into_port("receive");
            tracing::warn!(%error, topic = %self.topic, "subscription waits");
            open = self.open_again(&mut stop).await?;
            tracing::info!(topic = %self.topic, "subscription goes on");
        }
    }

    async fn open_again(&self, stop: &mut Stop) -> Option<Open> {
        loop {
            stop.or(sleep(PAUSE_AFTER_ERROR)).await?;
            match stop.or(self.open()).await? {
                Ok(open) => return Some(open),
                Err(failure) => {
                    let error = failure.into_port("subscribe");
                    tracing::debug!(%error, topic = %self.topic, "subscription waits");
                }
            }
        }
    }
}

impl Open {
    /// Hands on events until the stream breaks.
    async fn pump(&mut self, incoming: &mpsc::Sender<Incoming>) -> Status {
        loop {
            let event = match self.events.message().await {
                Ok(Some(event)) => event,
                Ok(None) => return Status::unavailable("the stream ended"),
                Err(status) => return status,
            };
            let Some(Response::EventMessage(event)) = event.subscribe_topic_events_response_type
            else {
                continue;
            };
            let delivery = Incoming {
                message: event.data.into(),
                answer: Answerer::Stream(event.id, self.replies.clone()),
                trace: None,
            };
            if incoming.send(delivery).await.is_err() {
                return Status::cancelled("nobody listens");
            }
        }
    }

    /// Closes the stream, after the answers that were given.
    pub(super) async fn close(self) {
        let Self {
            mut events,
            replies,
        } = self;
        sleep(LINGER).await;
        drop(replies);
        let end = async { while let Ok(Some(_)) = events.message().await {} };
        // What comes now is not answered, and comes again.
        let _ = timeout(CLOSE_TIMEOUT, end).await;
    }
}

/// The client's side of a stream: the subscription first, then answers until every sender is gone.
fn requests(
    initial: SubscribeTopicEventsRequestInitialAlpha1,
    answered: mpsc::UnboundedReceiver<(String, Reply)>,
) -> impl Stream<Item = SubscribeTopicEventsRequestAlpha1> + Send + 'static {
    let request = |kind| SubscribeTopicEventsRequestAlpha1 {
        subscribe_topic_events_request_type: Some(kind),
    };
    let first = request(Request::InitialRequest(initial));
    stream::unfold(
        (Some(first), answered),
        move |(first, mut answered)| async move {
            if let Some(first) = first {
                return Some((first, (None, answered)));
            }
            let (id, reply) = answered.recv().await?;
            let status = Some(TopicEventResponse {
                status: reply.status().into(),
            });
            let processed = SubscribeTopicEventsRequestProcessedAlpha1 { id, status };
            Some((
                request(Request::EventProcessed(processed)),
                (None, answered),
            ))
        },
    )
}
