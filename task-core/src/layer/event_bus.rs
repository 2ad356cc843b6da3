//! An event bus behind a policy.

use std::sync::Arc;

use async_trait::async_trait;

use super::policy::observed;
use super::{CallKind, Operation, Policy};
use crate::background::Background;
use crate::ports::{
    BusCapability, CapabilitySet, Event, EventBus, EventHandler, PortError, Subscription,
};

/// An [`EventBus`] whose publications are limited, repeated, broken off and observed.
///
/// `subscribe` is only observed.
#[derive(Debug)]
pub struct GuardedEventBus {
    inner: Arc<dyn EventBus>,
    backend: &'static str,
    policy: Policy,
}

impl GuardedEventBus {
    /// Guards a bus; `backend` names it in errors and observations.
    #[must_use]
    pub fn new(inner: Arc<dyn EventBus>, backend: &'static str, policy: Policy) -> Self {
        Self {
            inner,
            backend,
            policy,
        }
    }

    fn operation(&self, kind: CallKind, name: &'static str) -> Operation {
        Operation {
            port: "events",
            backend: self.backend,
            name,
            kind,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl EventBus for GuardedEventBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        self.inner.capabilities()
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        let operation = self.operation(CallKind::IdempotentWrite, "publish");
        self.policy
            .call(operation, || self.inner.publish(event))
            .await
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let call = self.inner.subscribe(subscription, handler);
        // It takes events: that none can be published says nothing of it.
        let operation = self.operation(CallKind::Read, "subscribe");
        observed(&*self.policy.observer, operation, call).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.policy
            .call(self.operation(CallKind::Probe, "check"), || {
                self.inner.check()
            })
            .await
    }
}

#[cfg(all(test, feature = "mock"))]
mod tests {
    use super::*;
    use crate::layer::CountingObserver;
    use crate::ports::{Answer, Delivery, ErrorKind, Group, MockEventBus, Topic};

    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl EventHandler for Silent {
        async fn handle(&self, _: &Delivery) -> Answer {
            Answer::Ack
        }
    }

    fn unavailable() -> PortError {
        PortError::new(ErrorKind::Unavailable, "mock", "call").unknown_outcome()
    }

    fn event() -> Event {
        Event {
            topic: Topic::new("task-events"),
            key: "t-1".into(),
            payload: "{}".into(),
        }
    }

    fn subscription() -> Subscription {
        Subscription::new(Topic::new("task-events"), Group::new("g"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_publication_is_repeated_and_a_subscription_is_not() {
        let mut mock = MockEventBus::new();
        mock.expect_publish()
            .withf(|given| *given == event())
            .times(3)
            .returning(|_| Err(unavailable()));
        mock.expect_subscribe()
            .withf(|given, _| *given == subscription())
            .times(1)
            .returning(|_, _| Err(unavailable()));
        mock.expect_check()
            .times(3)
            .returning(|| Err(unavailable()));
        let counts = Arc::new(CountingObserver::default());
        let observer = Arc::<CountingObserver>::clone(&counts);
        let policy = Policy {
            observer,
            ..Policy::default()
        };
        let bus = GuardedEventBus::new(Arc::new(mock), "mock", policy);
        bus.publish(&event()).await.expect_err("publish");
        bus.subscribe(subscription(), Arc::new(Silent))
            .await
            .expect_err("subscribe");
        bus.check().await.expect_err("check");
        let seen = counts.snapshot();
        let seen: Vec<_> = seen.iter().map(|c| (c.operation.name, c.calls)).collect();
        assert_eq!(seen, [("check", 1), ("publish", 1), ("subscribe", 1)]);
    }
}
