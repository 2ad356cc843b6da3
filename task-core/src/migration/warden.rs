//! Ends a time without writes whose leader has died.
//!
//! While buckets are in `handoff` nobody may write to them, and only who leads can end that. A leader that is
//! killed there leaves its lease to run out; then the first replica that notices takes the step back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::sides::Sides;
use super::{Cause, Coordinator};
use crate::background::Stop;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks after times without writes.
#[derive(Debug)]
pub(super) struct Warden {
    sides: Arc<Sides>,
    coordinator: Coordinator,
}

impl Warden {
    pub(super) fn new(sides: Arc<Sides>, mut coordinator: Coordinator) -> Self {
        let why = "whoever led the step is gone, and nobody could write";
        coordinator.because(Cause::new("warden", why));
        Self { sides, coordinator }
    }

    pub(super) async fn run(mut self, mut stop: Stop) {
        while !stop.is_raised() {
            let is_waiting = |pin: super::Pin| pin.control().waiting_from.is_some();
            if self.sides.member.pin().is_ok_and(is_waiting) {
                // It waits for its turn: of a leader that lives nothing is left to end then.
                if let Some(Err(error)) = stop.or(self.coordinator.recover()).await {
                    tracing::warn!(%error, "the time without writes goes on");
                }
            }
            stop.or(sleep(LOOK_EVERY)).await;
        }
    }
}
