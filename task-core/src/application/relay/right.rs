//! How long this relay may work, where several share an outbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::{Clock, PortError};

/// How long one replica relays for all without a sign of life; twice that, and another one does.
pub(super) const LEASE_LENGTH: Duration = Duration::from_secs(3);

/// When a held lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);

/// What is known of the lease.
#[derive(Debug)]
pub(super) struct Right {
    clock: Arc<dyn Clock>,
    /// How often a lease that another one holds is looked at.
    poll: Duration,
    /// Until when it is held, by the clock's uptime.
    until: Option<Duration>,
    /// When it is asked for again; none while it is.
    ask_at: Option<Instant>,
    last: Last,
}

/// The last answer of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    None,
    Held,
    Refused,
    Failed,
}

impl Right {
    pub(super) fn new(clock: Arc<dyn Clock>, poll: Duration, now: Instant) -> Self {
        Self {
            clock,
            poll,
            until: None,
            ask_at: Some(now),
            last: Last::None,
        }
    }

    /// Says whether the lease is to be asked for now.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        self.ask_at.take_if(|ask_at| *ask_at <= now).is_some()
    }

    /// The lease has answered until when it is held, or could not.
    pub(super) fn answered(
        &mut self,
        asked: Instant,
        answer: &Result<Option<Duration>, PortError>,
        now: Instant,
    ) {
        let (last, ask_at) = match answer {
            Ok(Some(_)) => (Last::Held, asked + RENEWAL),
            Ok(None) => (Last::Refused, now + self.poll),
            Err(_) => (Last::Failed, now + self.poll),
        };
        if let Ok(until) = answer {
            self.until = *until;
        }
        self.last = last;
        self.ask_at = Some(ask_at);
    }

    /// Says whether its time has run out since the last call.
    pub(super) fn runs_out(&mut self) -> bool {
        let is_over = self.until.is_some() && !self.is_held();
        if is_over {
            self.until = None;
        }
        is_over
    }

    pub(super) fn is_held(&self) -> bool {
        self.until.is_some_and(|until| self.clock.uptime() < until)
    }

    /// Says whether another one holds the lease, or who does cannot be told.
    pub(super) fn is_denied(&self) -> bool {
        !self.is_held() && matches!(self.last, Last::Refused | Last::Failed)
    }

    /// Says whether the lease could not be asked the last time.
    pub(super) fn has_failed(&self) -> bool {
        self.last == Last::Failed
    }

    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let rest = |until: Duration| now + until.saturating_sub(self.clock.uptime());
        self.ask_at.into_iter().chain(self.until.map(rest)).min()
    }
}
