//! How fast a job goes.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::memory::lock;

/// After a delay so much is made up for, so that the rate holds as a mean and not as a most.
const MADE_UP: Duration = Duration::from_millis(250);

/// Gives out moments at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for the next moment; at once without a rate.
    pub(super) async fn wait(&self, per_s: Option<u32>) {
        let Some(per_s) = per_s.filter(|per_s| *per_s > 0) else {
            return;
        };
        let now = Instant::now();
        let at = {
            let mut next = lock(&self.next);
            let earliest = now.checked_sub(MADE_UP).unwrap_or(now);
            let at = (*next).max(earliest);
            *next = at + Duration::from_secs(1) / per_s;
            at
        };
        if at > now {
            sleep_until(at).await;
        }
    }
}

/// Tells the rate of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Meter {
    seen: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// The time that counts.
    const WINDOW: Duration = Duration::from_secs(10);

    /// Most moments that are kept.
    const MOST: usize = 1_000;

    /// Notes how much is done, and answers the rate a second.
    pub(super) fn note(&mut self, done: u64) -> f64 {
        let now = Instant::now();
        self.seen.push_back((now, done));
        while let Some((at, _)) = self.seen.get(1)
            && (now.duration_since(*at) >= Self::WINDOW || self.seen.len() > Self::MOST)
        {
            self.seen.pop_front();
        }
        let Some((at, before)) = self.seen.front() else {
            return 0.0;
        };
        let time = now.duration_since(*at).as_secs_f64();
        match done.checked_sub(*before) {
            Some(more) if time > 0.0 => more as f64 / time,
            // It began anew.
            None => {
                self.seen.clear();
                0.0
            }
            Some(_) => 0.0,
        }
    }
}
