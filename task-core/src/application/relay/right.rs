//! How long this relay may work, where several share an outbox.

use std::time::Duration;

use tokio::time::Instant;

/// How long one replica relays for all without a sign of life; twice that, and another one does.
pub(super) const LEASE_LENGTH: Duration = Duration::from_secs(3);

/// How long an answer of the lease counts: it may be as old as the third after which it is renewed.
const ANSWER_COUNTS: Duration = Duration::from_secs(2);

/// When a held lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);

/// What is known of the lease.
#[derive(Debug)]
pub(super) struct Right {
    /// How often a lease that another one holds is looked at.
    poll: Duration,
    until: Option<Instant>,
    ask_at: Instant,
    is_asking: bool,
    /// The last answer was no.
    is_refused: bool,
    /// There was no answer the last time.
    has_failed: bool,
}

impl Right {
    pub(super) fn new(poll: Duration, now: Instant) -> Self {
        Self {
            poll,
            until: None,
            ask_at: now,
            is_asking: false,
            is_refused: false,
            has_failed: false,
        }
    }

    /// Says whether the lease is to be asked for now.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        if self.is_asking || now < self.ask_at {
            return false;
        }
        self.is_asking = true;
        true
    }

    /// The lease has answered, or could not.
    pub(super) fn answered(&mut self, asked: Instant, answer: Option<bool>, now: Instant) {
        self.is_asking = false;
        self.is_refused = answer == Some(false);
        self.has_failed = answer.is_none();
        let pause = match answer {
            Some(true) => {
                self.until = Some(asked + ANSWER_COUNTS).filter(|until| now < *until);
                RENEWAL
            }
            Some(false) => {
                self.until = None;
                self.poll
            }
            None => self.poll,
        };
        self.ask_at = asked + pause;
        // An answer that took long is asked for again after a pause all the same.
        if self.ask_at <= now && answer != Some(true) {
            self.ask_at = now + self.poll;
        }
    }

    /// Says whether its time has run out since the last call.
    pub(super) fn runs_out(&mut self, now: Instant) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now);
        if is_over {
            self.until = None;
        }
        is_over
    }

    pub(super) fn is_held(&self) -> bool {
        self.until.is_some()
    }

    /// Says whether another one holds the lease.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Says whether the lease could not be asked the last time.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let ask = Some(self.ask_at).filter(|_| !self.is_asking);
        ask.into_iter().chain(self.until).min()
    }
}
