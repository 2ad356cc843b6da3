//! Notifications over HTTP, on whichever backend.

use std::sync::Arc;

use task_core::ports::Notifier;

use crate::app::StartError;
use crate::config::{Config, NotificationUrl};

/// A notifier that posts to a receiver.
#[cfg(feature = "http")]
pub(super) fn over_http(
    config: &Config,
    url: &NotificationUrl,
) -> Result<Arc<dyn Notifier>, StartError> {
    use std::time::Duration;

    use adapters_direct::http::{HttpConfig, HttpNotifier};
    use task_core::layer::{CircuitBreaker, GuardedNotifier, Policy, RetryBudget, RetryPolicy};

    let refused = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Backend {
        name: "http",
        advice: "check notification_url",
        source,
    };
    let mut http = HttpConfig::new(url.base()).map_err(|error| refused(error.into()))?;
    http.deadline = config.notification_timeout;
    http.connect_timeout = http.connect_timeout.min(config.notification_timeout);
    let notifier = HttpNotifier::new(http).map_err(|error| refused(error.into()))?;
    // What a moment heals is tried again here, as far as the budget goes; the bus does the rest, later.
    let policy = Policy {
        retry: RetryPolicy {
            attempts: 2,
            ..RetryPolicy::default()
        },
        budget: Some(Arc::new(RetryBudget::default())),
        breaker: Some(Arc::new(CircuitBreaker::default())),
        // Longer than the call's own deadline, whose error says more.
        ..super::once(config.notification_timeout + Duration::from_secs(1))
    };
    let guarded = GuardedNotifier::new(Arc::new(notifier), "http", policy);
    Ok(Arc::new(guarded))
}

/// Never called: the configuration was checked against this build.
#[cfg(not(feature = "http"))]
pub(super) fn over_http(_: &Config, _: &NotificationUrl) -> Result<Arc<dyn Notifier>, StartError> {
    unreachable!("HTTP is not compiled in, which was checked")
}
