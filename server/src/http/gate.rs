//! What every request passes before it reaches a route: load shedding, a deadline, its trace, a net for panics.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use super::body::Allowance;
use super::error::Problem;
use crate::config::Limits;
use crate::trace;

/// A router behind its limits.
///
/// It is a plain function around the router and no stack of layers: one place to read, and one boxed
/// future less for each layer that it is not.
#[derive(Debug)]
pub struct Gate {
    router: Router,
    slots: Semaphore,
    body_slots: Semaphore,
    limits: Limits,
}

impl Gate {
    /// Puts limits around a router.
    #[must_use]
    pub fn new(router: Router, limits: &Limits) -> Self {
        Self {
            router,
            slots: Semaphore::new(limits.max_concurrency),
            body_slots: Semaphore::new(limits.max_concurrency),
            limits: limits.clone(),
        }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Requests in work.
    #[must_use]
    pub fn in_work(&self) -> usize {
        let free = self.slots.available_permits() + self.body_slots.available_permits();
        (2 * self.limits.max_concurrency).saturating_sub(free)
    }

    /// Answers a request, whatever happens.
    ///
    /// A request beyond `max_concurrency` is refused at once and never queued, except for the two
    /// probes: a busy service is alive. Requests with a body are counted apart from those without, so
    /// that clients who send theirs slowly cannot keep anybody from reading.
    ///
    /// # Cancel safety
    /// A dropped future may leave the request's write done or not done.
    pub async fn answer(&self, mut request: Request) -> Response {
        let is_probe = matches!(request.uri().path(), "/health" | "/ready");
        let slots = if request.body().is_end_stream() {
            &self.slots
        } else {
            &self.body_slots
        };
        let slot = slots.try_acquire();
        if slot.is_err() && !is_probe {
            let detail = format!(
                "the service is at its limit of {} requests at once; nothing was changed",
                self.limits.max_concurrency
            );
            return Problem::busy(detail).into_response();
        }
        let timeout = self.limits.request_timeout;
        let deadline = Instant::now() + timeout;
        request.extensions_mut().insert(Allowance {
            max_body_bytes: self.limits.max_body_bytes,
            deadline,
            timeout,
        });
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let caller = trace::Context::of(request.headers());
        let routed = trace::within(caller, self.router.clone().call(request));
        let routed = AssertUnwindSafe(routed).catch_unwind();
        match timeout_at(deadline, routed).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_panic)) => {
                tracing::error!("request handler panicked");
                let detail = "an internal error; it is unknown whether a change took effect";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
            }
            Err(_elapsed) => {
                let outcome = if matches!(method, Method::GET | Method::HEAD) {
                    ""
                } else {
                    "; it is unknown whether the change took effect"
                };
                let millis = timeout.as_millis();
                tracing::warn!(%method, path, timeout_ms = millis, "request timed out");
                let detail = format!("the request was not done within {millis} ms{outcome}");
                Problem::busy(detail).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::routing::{get, post};

    use super::*;
    use crate::config::Config;

    async fn panic_on_purpose() -> &'static str {
        panic!("on purpose")
    }

    fn gate(max_concurrency: usize) -> Gate {
        let mut limits = Config::defaults().limits;
        limits.max_concurrency = max_concurrency;
        let router = Router::new()
            .route("/health", get(async || "up"))
            .route("/panic", get(panic_on_purpose))
            .route(
                "/slow",
                post(std::future::pending::<()>).get(std::future::pending::<()>),
            );
        Gate::new(router, &limits)
    }

    fn request(method: Method, path: &str) -> Request {
        let builder = Request::builder().method(method).uri(path);
        builder.body(Body::empty()).expect("a valid request")
    }

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        String::from_utf8(body.expect("a whole body").to_vec()).expect("UTF-8")
    }

    #[tokio::test]
    async fn beyond_the_limit_requests_are_refused_at_once_and_probes_are_not() {
        let gate = gate(1);
        let _taken = gate.slots.acquire().await.expect("an open semaphore");
        assert_eq!(gate.in_work(), 1);
        let refused = gate.answer(request(Method::GET, "/slow")).await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "1");
        let probe = gate.answer(request(Method::GET, "/health")).await;
        assert_eq!(probe.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_past_its_deadline_is_503_and_a_write_says_that_its_outcome_is_unknown() {
        let gate = gate(1);
        let began = Instant::now();
        let write = gate.answer(request(Method::POST, "/slow")).await;
        assert!(began.elapsed() >= Duration::from_secs(30));
        assert_eq!(write.status(), 503);
        assert!(text(write).await.contains("unknown whether"));
        let read = gate.answer(request(Method::GET, "/slow")).await;
        assert!(!text(read).await.contains("unknown"));
    }

    #[tokio::test]
    async fn a_panic_is_a_500_and_frees_its_slot() {
        let gate = gate(1);
        for _ in 0..2 {
            let response = gate.answer(request(Method::GET, "/panic")).await;
            assert_eq!(response.status(), 500);
            assert!(!text(response).await.contains("on purpose"));
        }
    }
}
