//! Adapters that talk to a Dapr sidecar, and to nothing else.
//!
//! Which store, which bus and where they are is the business of Dapr's components: this crate knows the
//! sidecar's address, and has no client of Redis or Kafka in its tree.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use adapters_dapr::{DaprEventBus, EventBusOptions, Sidecar, SidecarConfig, SidecarOptions, callbacks};
//!
//! let config = SidecarConfig::from_env_vars([])?;
//! let sidecar = Sidecar::new(config, SidecarOptions::default())?;
//! sidecar.wait_until_ready(Duration::from_secs(30)).await?;
//! let bus = DaprEventBus::open(&sidecar, EventBusOptions::default()).await?;
//! let routes: axum::Router = callbacks(&sidecar, &bus);
//! # Ok(())
//! # }
//! ```

mod callback;
mod config;
mod error;
mod event_bus;
mod notifier;
mod secret_store;
mod sidecar;
mod state_store;

pub use callback::{CALLBACK_PATHS, callbacks, with_app_token};
pub use config::{
    Components, ConfigError, DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, Problem, SidecarConfig, Token,
};
pub use event_bus::{DaprEventBus, EventBusOptions, EventBusProfile, Intake, NewGroups};
pub use notifier::DaprNotifier;
pub use secret_store::DaprSecretStore;
pub use sidecar::{
    API_TOKEN, Component, CurrentTrace, Metadata, Sidecar, SidecarOptions, Subscribed, TRACEPARENT,
    TraceParent, WithinTrace,
};
pub use state_store::{DaprStateStore, Events, StateStoreOptions, StateStoreProfile};
