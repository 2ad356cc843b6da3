//! One subscription: takes deliveries in hand, has them handled, and answers the sidecar.
//!
//! A delivery stays in hand, and unanswered, until it is done with: retries and their pauses happen here.
//! So the sidecar needs no policy of its own, and what a crash interrupts comes again. Where the
//! component delivers what is still in hand once more (`processingTimeout` of Redis), the new delivery
//! takes the place of the old one, whose worker is free again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use task_core::background::Stop;
use task_core::dispatch::{Dispatcher, Handled};
use task_core::ports::{Delivery, Event, EventHandler, Subscription};
use tokio::sync::mpsc;

use super::intake::{Answerer, Incoming, Reply};
use super::payload;
use super::publisher::Publisher;
use super::undertaker::{Traces, Undertaker};

/// Most deliveries in hand at once; the component's own concurrency is far below it.
const MAX_IN_HAND: usize = 1024;

type Content = (Box<str>, Bytes);

/// When the sidecar is told that an event is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answering {
    /// When it is: what is interrupted comes again.
    WhenDone,
    /// When it is in hand: what is interrupted is lost.
    AtOnce,
}

/// The deliveries of one subscription.
#[derive(Debug)]
pub(super) struct InHand {
    subscription: Subscription,
    incoming: mpsc::Receiver<Incoming>,
    answering: Answering,
    waiting: HashMap<u64, (Content, Answerer)>,
    by_content: HashMap<Content, u64>,
    traces: Arc<Traces>,
    next_place: u64,
}

impl InHand {
    pub(super) fn new(
        subscription: Subscription,
        incoming: mpsc::Receiver<Incoming>,
        answering: Answering,
    ) -> Self {
        Self {
            subscription,
            incoming,
            answering,
            waiting: HashMap::new(),
            by_content: HashMap::new(),
            traces: Arc::default(),
            next_place: 0,
        }
    }

    /// Handles what comes until it should stop, then waits for the calls that run. What is not done with
    /// then is left to the sidecar.
    pub(super) async fn run(
        mut self,
        handler: Arc<dyn EventHandler>,
        publisher: Publisher,
        mut stop: Stop,
    ) {
        let undertaker = Undertaker {
            handler,
            max_deliveries: self.subscription.redelivery.max_deliveries,
            dead_letter: self.subscription.dead_letter.clone(),
            within: publisher.sidecar.tracing().1,
            traces: Arc::clone(&self.traces),
            publisher,
            stop: stop.clone(),
        };
        let mut dispatcher = Dispatcher::new(Arc::new(undertaker), &self.subscription);
        while !stop.is_raised() {
            let mut received = None;
            let room = self.waiting.len() < MAX_IN_HAND;
            let receive = async {
                match room {
                    true => received = self.incoming.recv().await,
                    false => std::future::pending().await,
                }
            };
            let handled = stop.or(dispatcher.next_or(receive)).await;
            if let Some(incoming) = received {
                self.take(&mut dispatcher, incoming);
            }
            if let Some(Some(handled)) = handled {
                self.settle(&handled);
            }
        }
        dispatcher.stop();
        while let Some(handled) = dispatcher.next().await {
            self.settle(&handled);
        }
        for (_, answer) in self.waiting.into_values() {
            answer.answer(Reply::Retry);
        }
    }

    fn take(&mut self, dispatcher: &mut Dispatcher<u64>, incoming: Incoming) {
        let Incoming {
            message,
            answer,
            trace,
        } = incoming;
        let answer = match self.answering {
            Answering::WhenDone => answer,
            Answering::AtOnce => answer.now(Reply::Success),
        };
        let content = payload::content(message);
        if content.1.len() > Event::MAX_PAYLOAD_BYTES {
            tracing::error!(
                topic = %self.subscription.topic, bytes = content.1.len(),
                limit_bytes = Event::MAX_PAYLOAD_BYTES, "an event is too large and was dropped"
            );
            return answer.answer(Reply::Drop);
        }
        if let Some(place) = self.by_content.get(&content) {
            if let Some((_, waiting)) = self.waiting.get_mut(place) {
                let older = std::mem::replace(waiting, answer);
                older.answer(Reply::Retry);
            }
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        let delivery = Delivery {
            topic: self.subscription.topic.clone(),
            key: content.0.clone(),
            payload: content.1.clone(),
            attempt: 1,
        };
        self.traces.begin(&content, trace);
        self.by_content.insert(content.clone(), place);
        self.waiting.insert(place, (content, answer));
        dispatcher.offer(place, delivery);
    }

    fn settle(&mut self, handled: &Handled<u64>) {
        let (place, reply) = match handled {
            Handled::Done { place } => (place, Reply::Success),
            // The undertaker has acknowledged it, so that it does not come to this.
            Handled::Dead { place, .. } => (place, Reply::Retry),
            Handled::Again { .. } => return,
        };
        if let Some((content, answer)) = self.waiting.remove(place) {
            self.by_content.remove(&content);
            self.traces.end(&content);
            answer.answer(reply);
        }
    }
}
