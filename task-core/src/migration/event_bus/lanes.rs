//! Copies of events for the new bus, beside the requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{limited, shadow_topic};
use crate::background::{Background, Stop};
use crate::memory::lock;
use crate::migration::{BusStage, MovedCall, Recorder, Side};
use crate::ports::{Event, EventBus};

/// Copies that are published at once; those of one key follow each other in one lane.
const LANES: usize = 16;

/// Most copies that wait in a lane. They are whole events, so that is at most 1 GiB, and usually a few MiB.
const MOST_WAITING: usize = 256;

/// Publishes copies, each once: one that fails is counted, and missing on the new bus.
#[derive(Debug)]
pub(super) struct Lanes {
    new: Arc<dyn EventBus>,
    recorder: Arc<Recorder>,
    deadline: Duration,
    lanes: [Lane; LANES],
}

#[derive(Debug, Default)]
struct Lane {
    waiting: Mutex<VecDeque<Event>>,
    arrived: Notify,
}

impl Lanes {
    pub(super) fn new(new: Arc<dyn EventBus>, recorder: Arc<Recorder>, deadline: Duration) -> Self {
        Self {
            new,
            recorder,
            deadline,
            lanes: Default::default(),
        }
    }

    /// Lets a copy of an event follow; it does not wait, and passes over what is too much.
    pub(super) fn offer(&self, event: &Event) {
        let hash = xxhash_rust::xxh3::xxh3_64(event.key.as_bytes());
        let lane = &self.lanes[(hash % LANES as u64) as usize];
        let mut waiting = lock(&lane.waiting);
        if waiting.len() >= MOST_WAITING {
            self.recorder
                .skip(MovedCall::Publish, Side::New, BusStage::Shadow);
            return;
        }
        waiting.push_back(Event {
            topic: shadow_topic(&event.topic),
            ..event.clone()
        });
        lane.arrived.notify_one();
    }

    pub(super) fn start(lanes: &Arc<Self>) -> Background {
        let lanes = Arc::clone(lanes);
        Background::spawn("shadow events", |stop| async move {
            join_all(lanes.lanes.iter().map(|lane| lanes.run(lane, stop.clone()))).await;
        })
    }

    async fn run(&self, lane: &Lane, mut stop: Stop) {
        while !stop.is_raised() {
            let next = lock(&lane.waiting).pop_front();
            match next {
                Some(event) => {
                    stop.or(self.publish(&event)).await;
                }
                None => {
                    stop.or(lane.arrived.notified()).await;
                }
            }
        }
    }

    async fn publish(&self, event: &Event) {
        let publishing = limited(self.deadline, self.new.publish(event));
        let published = self
            .recorder
            .time(MovedCall::Publish, Side::New, BusStage::Shadow, publishing)
            .await;
        if let Err(error) = published {
            tracing::debug!(%error, key = %event.key, "no copy on the new bus");
        }
    }
}
