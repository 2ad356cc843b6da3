//! Adapters that talk to a Dapr sidecar.
