//! The wrapper that makes event buses.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use task_core::background::Background;
use task_core::memory::MemoryEventBus;
use task_core::ports::{
    BusCapability, CapabilitySet, Event, EventBus, EventHandler, PortError, Subscription,
};

use crate::conformance::Failure;
use crate::conformance::event_bus::EventBusBackend;

/// One thing that a bus does wrong; what it does not override is right.
#[async_trait]
pub(super) trait BusFault: Debug + Send + Sync + 'static {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        // A memory that is only put aside for the restart is durable enough to be judged by it.
        CapabilitySet::of(&[
            BusCapability::OrderedPerKey,
            BusCapability::DeadLetter,
            BusCapability::Durable,
        ])
    }

    async fn publish(&self, inner: &dyn EventBus, event: &Event) -> Result<(), PortError> {
        inner.publish(event).await
    }

    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        inner.subscribe(subscription, handler).await
    }
}

#[derive(Debug)]
struct FaultyBus<F> {
    inner: MemoryEventBus,
    fault: Arc<F>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<F: BusFault> EventBus for FaultyBus<F> {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        self.fault.capabilities()
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        self.fault.publish(&self.inner, event).await
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        self.fault
            .subscribe(&self.inner, subscription, handler)
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.inner.check().await
    }
}

#[derive(Debug)]
struct FaultyBuses<F> {
    fault: Arc<F>,
}

pub(super) fn faulty<F: BusFault>(fault: F) -> Arc<dyn EventBusBackend> {
    Arc::new(FaultyBuses {
        fault: Arc::new(fault),
    })
}

/// Short, because most cases that reject a broken bus wait for something that never comes.
const PATIENCE: Duration = Duration::from_secs(2);

#[async_trait]
impl<F: BusFault> EventBusBackend for FaultyBuses<F> {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(Arc::new(FaultyBus {
            inner: MemoryEventBus::new(),
            fault: Arc::clone(&self.fault),
        }))
    }

    async fn reopen(&self, bus: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(bus)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    async fn close(&self) {}
}

/// Does everything right.
#[derive(Debug)]
struct NoFault;

impl BusFault for NoFault {}

/// Call themselves durable and open empty.
#[derive(Debug)]
pub(super) struct ForgetfulBuses;

#[async_trait]
impl EventBusBackend for ForgetfulBuses {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(Arc::new(FaultyBus {
            inner: MemoryEventBus::new(),
            fault: Arc::new(NoFault),
        }))
    }

    async fn reopen(&self, _: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        self.open().await
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    async fn close(&self) {}
}
