//! Hands events to the sidecar.

use std::collections::HashMap;

use dapr::dapr::proto::runtime::v1::PublishEventRequest;
use task_core::ports::Event;

use super::payload;
use crate::error::{Effect, Failure};
use crate::sidecar::{Grpc, Sidecar};

const CLOUD_EVENT: &str = "application/cloudevents+json";

/// Metadata by which the sidecar leaves a payload as it is; both sides need it.
pub(super) const RAW_PAYLOAD: (&str, &str) = ("rawPayload", "true");

/// The key of a message on Kafka; other components keep it and do nothing with it.
const PARTITION_KEY: &str = "partitionKey";

/// One pub/sub component as a publisher sees it.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    pub(super) sidecar: Sidecar,
    pub(super) pubsub: String,
}

impl Publisher {
    /// Publishes once and returns when the component has accepted the event.
    pub(super) async fn publish(&self, event: &Event) -> Result<(), Failure> {
        let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let metadata = [RAW_PAYLOAD, (PARTITION_KEY, &*event.key)];
        let request = PublishEventRequest {
            pubsub_name: self.pubsub.clone(),
            topic: event.topic.as_str().to_owned(),
            data: payload::message(event).into(),
            data_content_type: CLOUD_EVENT.to_owned(),
            metadata: HashMap::from(metadata.map(text)),
        };
        let publish = async |mut grpc: Grpc| grpc.publish_event(request).await;
        self.sidecar.call(Effect::Write, publish).await
    }
}
