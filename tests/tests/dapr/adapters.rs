//! The sidecar's adapters on the real Dapr, beyond what the conformance suite asks.

mod bus;
mod callbacks;
mod faults;
mod notifier;
mod sidecar;

use std::sync::Arc;
use std::time::Duration;

use adapters_dapr::{
    DaprEventBus, EventBusOptions, NewGroups, Sidecar as Adapter, SidecarOptions as AdapterOptions,
};
use bytes::Bytes;
use task_core::ports::{
    Answer, Delivery, Event, EventHandler, Group, Redelivery, Subscription, Topic,
};
use task_tests::backends::dapr::connect;
use task_tests::process::Sidecar;
use task_tests::process::dapr::Component;
use tokio::sync::mpsc;

const APP: &str = "task-api";

const TOPIC: &str = "task-events";

/// Redis as the tests need it: what a crash leaves behind is delivered again soon.
fn redis_pubsub(url: &str) -> Component {
    Component::redis_pubsub("pubsub", url)
        .with("processingTimeout", "2000")
        .with("redeliverInterval", "500")
}

fn adapter(sidecar: &Sidecar) -> Adapter {
    connect(sidecar, &[], AdapterOptions::default()).unwrap()
}

/// A bus on topics that are empty.
async fn bus(adapter: &Adapter) -> DaprEventBus {
    let options = EventBusOptions {
        new_groups: Some(NewGroups::Exist),
        ..EventBusOptions::default()
    };
    DaprEventBus::open(adapter, options).await.unwrap()
}

fn subscription() -> Subscription {
    Subscription {
        redelivery: Redelivery {
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(200),
            ..Redelivery::default()
        },
        ..Subscription::new(Topic::new(TOPIC), Group::new(APP))
    }
}

/// An envelope as the service builds it, with an integer that a double cannot hold.
fn event(id: &str) -> Event {
    let payload = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"task-api","type":"task.created","subject":"{id}", "z":9007199254740993,"data":{{"task_id":"{id}","title":"<ä\u00e4>"}}}}"#
    );
    Event {
        topic: Topic::new(TOPIC),
        key: id.into(),
        payload: Bytes::from(payload),
    }
}

/// A handler that tells what it hears and answers as a function says.
struct Ear<F> {
    heard: mpsc::UnboundedSender<Delivery>,
    answer: F,
}

impl<F> std::fmt::Debug for Ear<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ear").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl<F: Fn(&Delivery) -> Answer + Send + Sync + 'static> EventHandler for Ear<F> {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let answer = (self.answer)(delivery);
        // A case may have heard enough.
        let _ = self.heard.send(delivery.clone());
        answer
    }
}

fn ear(
    answer: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
) -> (Arc<dyn EventHandler>, mpsc::UnboundedReceiver<Delivery>) {
    let (heard, hear) = mpsc::unbounded_channel();
    (Arc::new(Ear { heard, answer }), hear)
}

async fn next(hear: &mut mpsc::UnboundedReceiver<Delivery>) -> Delivery {
    let next = tokio::time::timeout(task_tests::wait::DEADLINE, hear.recv()).await;
    next.expect("no event came").unwrap()
}
