//! What the sidecar says of itself.

use std::fmt;

use dapr::dapr::proto::runtime::v1::{GetMetadataResponse, RegisteredComponents};
use task_core::ports::{ErrorKind, PortError};

use crate::error::BACKEND;

/// The sidecar as it is configured now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The app id that it runs with; state keys and consumer groups carry it.
    pub app_id: String,
    /// Its version, `1.16.0` for example.
    pub version: String,
    /// Its components, as far as they are in our scope and could be initialised.
    pub components: Vec<Component>,
    /// What it subscribes to for us over the app's port.
    pub subscriptions: Vec<Subscribed>,
}

/// One component of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its type, `state.redis` for example.
    pub kind: String,
    /// The version of its type, `v1` for example.
    pub version: String,
    /// What it can do, in Dapr's words; empty for a pub/sub component.
    pub capabilities: Vec<String>,
}

/// One topic that the sidecar delivers to the app's port.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// The pub/sub component.
    pub pubsub: String,
    /// The topic.
    pub topic: String,
    /// Where events go that the app drops or cannot handle; empty if nowhere.
    pub dead_letter: String,
}

impl Metadata {
    /// The component of this name.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|one| one.name == name)
    }

    /// The component of this name, which an adapter is opened on.
    pub(crate) fn needed(&self, name: &str) -> Result<&Component, PortError> {
        self.component(name).ok_or_else(|| {
            PortError::new(ErrorKind::NotFound, BACKEND, "open")
                .context(format!("the sidecar has no component {name:?}"))
        })
    }

    pub(super) fn of(answer: GetMetadataResponse) -> Self {
        let subscriptions = answer.subscriptions.into_iter();
        Self {
            app_id: answer.id,
            version: answer.runtime_version,
            components: answer
                .registered_components
                .into_iter()
                .map(component)
                .collect(),
            subscriptions: subscriptions
                .map(|one| Subscribed {
                    pubsub: one.pubsub_name,
                    topic: one.topic,
                    dead_letter: one.dead_letter_topic,
                })
                .collect(),
        }
    }
}

impl Component {
    /// Says whether it declares a capability of Dapr's, `ETAG` for example.
    #[must_use]
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|one| one == capability)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.name, self.kind, self.version)
    }
}

fn component(one: RegisteredComponents) -> Component {
    Component {
        name: one.name,
        kind: one.r#type,
        version: one.version,
        capabilities: one.capabilities,
    }
}
