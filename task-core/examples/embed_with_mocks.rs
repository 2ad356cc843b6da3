//! Tests code of your own against a port that fails, with a mockall double of that port.
//!
//! ```text
//! cargo run -p task-core --features mock --example embed_with_mocks
//! ```
//!
//! The double injects one error and counts its calls; what is stored is better asserted on
//! [`MemoryStateStore`](task_core::memory::MemoryStateStore).

use std::sync::Arc;

use task_core::layer::{GuardedStateStore, Policy};
use task_core::ports::{
    DeleteOptions, ErrorKind, Key, Kind, MockStateStore, Outcome, PortError, StateStore,
};

const NOTES: Kind = Kind::new("note");

/// Code of the embedding crate: it knows the port and no backend.
async fn forget(store: &dyn StateStore, id: &str) -> Result<(), String> {
    let key = Key::new(NOTES, id);
    match store.delete(&key, DeleteOptions::default()).await {
        Ok(()) => Ok(()),
        Err(error) if error.outcome() == Outcome::Unknown => {
            Err(format!("{id} may still be there, look again"))
        }
        Err(error) => Err(format!("{id} is still there: {error}")),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut backend = MockStateStore::new();
    backend
        .expect_delete()
        .withf(|key, options| {
            *key == Key::new(NOTES, "n-1") && *options == DeleteOptions::default()
        })
        // Once: a write that may have been applied is not repeated.
        .times(1)
        .returning(|_, _| {
            Err(PortError::new(ErrorKind::Unavailable, "mock", "delete").unknown_outcome())
        });
    let store = GuardedStateStore::new(Arc::new(backend), "mock", Policy::default());

    let answer = forget(&store, "n-1").await;
    assert_eq!(answer, Err("n-1 may still be there, look again".to_owned()));
}
