//! Notifications over HTTP, and what guards them on whichever backend.

use std::sync::Arc;
#[cfg(any(feature = "http", feature = "dapr"))]
use std::time::Duration;

#[cfg(any(feature = "http", feature = "dapr"))]
use task_core::layer::{CircuitBreaker, GuardedNotifier, Policy, RetryBudget, RetryPolicy};
use task_core::ports::Notifier;

#[cfg(any(feature = "embedded", all(feature = "redis", feature = "http")))]
use crate::app::StartError;
#[cfg(any(feature = "embedded", all(feature = "redis", feature = "http")))]
use crate::config::{Config, NotificationUrl};

/// A notifier that tries again what a moment heals, as far as its budget goes, and gives a receiver that
/// is down a rest. The bus does what is left, later.
#[cfg(any(feature = "http", feature = "dapr"))]
pub(super) fn guarded(
    notifier: Arc<dyn Notifier>,
    name: &'static str,
    deadline: Duration,
) -> Arc<dyn Notifier> {
    let policy = Policy {
        retry: RetryPolicy {
            attempts: 2,
            ..RetryPolicy::default()
        },
        budget: Some(Arc::new(RetryBudget::default())),
        breaker: Some(Arc::new(CircuitBreaker::default())),
        // Longer than the call's own deadline, whose error says more.
        ..super::guards::once(deadline + Duration::from_secs(1))
    };
    Arc::new(GuardedNotifier::new(notifier, name, policy))
}

/// A notifier that posts to a receiver.
#[cfg(all(feature = "http", any(feature = "embedded", feature = "redis")))]
pub(super) fn over_http(
    config: &Config,
    url: &NotificationUrl,
) -> Result<Arc<dyn Notifier>, StartError> {
    use adapters_direct::http::{HttpConfig, HttpNotifier};

    let refused = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Backend {
        name: "http",
        advice: "check notification_url",
        source,
    };
    let mut http = HttpConfig::new(url.base()).map_err(|error| refused(error.into()))?;
    http.deadline = config.notification_timeout;
    http.connect_timeout = http.connect_timeout.min(config.notification_timeout);
    let notifier = HttpNotifier::new(http).map_err(|error| refused(error.into()))?;
    Ok(guarded(
        Arc::new(notifier),
        "http",
        config.notification_timeout,
    ))
}

/// Never called: the configuration was checked against this build.
#[cfg(all(feature = "embedded", not(feature = "http")))]
pub(super) fn over_http(_: &Config, _: &NotificationUrl) -> Result<Arc<dyn Notifier>, StartError> {
    unreachable!("HTTP is not compiled in, which was checked")
}
