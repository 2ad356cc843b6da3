//! How many attempts may be repeated in all, so that retries do not double the load of a backend that fails.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::memory::lock;

/// What a call adds to the budget, in thousandths of a retry.
const PER_CALL: u64 = 200;

/// What a second adds to it: so many retries are always there, also where calls are rare.
const PER_SECOND: u64 = 1_000;

/// What one retry takes from it.
const PER_RETRY: u64 = 1_000;

/// The most that is saved up, and what there is at the beginning.
const MOST: u64 = 10_000;

/// Lets retries be a fifth of all calls, and one a second on top.
///
/// It is full at ten retries. With nothing left a call ends after its first attempt, and whoever called
/// decides when to come again. Share one between the ports that one backend serves.
///
/// *Source:* the retry budgets of Finagle and of tower.
#[derive(Debug)]
pub struct RetryBudget(Mutex<Balance>);

#[derive(Debug)]
struct Balance {
    thousandths: u64,
    /// Up to when time has been added.
    at: Instant,
}

impl Default for RetryBudget {
    /// A full one.
    fn default() -> Self {
        Self(Mutex::new(Balance {
            thousandths: MOST,
            at: Instant::now(),
        }))
    }
}

impl RetryBudget {
    /// Adds what a call that begins earns.
    pub(super) fn earn(&self) {
        lock(&self.0).add(PER_CALL);
    }

    /// Takes one retry, if there is one.
    pub(super) fn spend(&self) -> bool {
        let mut balance = lock(&self.0);
        let now = Instant::now();
        let passed = u64::try_from((now - balance.at).as_millis()).unwrap_or(u64::MAX);
        if passed > 0 {
            balance.at = now;
            balance.add(passed.saturating_mul(PER_SECOND) / 1_000);
        }
        match balance.thousandths.checked_sub(PER_RETRY) {
            Some(rest) => {
                balance.thousandths = rest;
                true
            }
            None => false,
        }
    }
}

impl Balance {
    fn add(&mut self, thousandths: u64) {
        self.thousandths = self.thousandths.saturating_add(thousandths).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spent(budget: &RetryBudget) -> usize {
        std::iter::from_fn(|| budget.spend().then_some(())).count()
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_fifth_of_the_calls_and_one_a_second() {
        let budget = RetryBudget::default();
        assert_eq!(spent(&budget), 10);
        for _ in 0..40 {
            budget.earn();
        }
        assert_eq!(spent(&budget), 8);
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(spent(&budget), 2);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(spent(&budget), 1);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(spent(&budget), 10);
    }
}
