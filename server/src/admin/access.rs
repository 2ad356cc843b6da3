//! Who may ask the admin routes.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use task_core::ports::Secret;

use super::refusal::Refusal;

type Token = Option<Arc<Secret>>;

/// Lets only those through who show the token; without one, only programs on this machine.
pub(super) fn guarded(routes: Router, token: Option<Secret>) -> Router {
    let token: Token = token.map(Arc::new);
    routes.layer(from_fn_with_state(token, check))
}

async fn check(State(token): State<Token>, request: Request, next: Next) -> Response {
    let refused = match &token {
        Some(token) => lacks_token(request.headers(), token),
        None => is_of_a_page(request.headers()),
    };
    match refused {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

fn lacks_token(headers: &HeaderMap, token: &Secret) -> Option<Refusal> {
    let shown = headers.get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match shown {
        None => Some(Refusal::unauthorized(
            "a token is required: give --admin-token, or the variable TASK_ADMIN_TOKEN",
        )),
        // In constant time.
        Some(shown) if token.matches(shown) => None,
        Some(_) => Some(Refusal::unauthorized("this is not the token")),
    }
}

/// Without a token a page in a browser on this machine must not ask: it says whose page it is, or asks for this
/// machine by a name of its own.
fn is_of_a_page(headers: &HeaderMap) -> Option<Refusal> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let host = text(header::HOST).unwrap_or("");
    let is_own_page = |origin| origin == format!("http://{host}");
    if !is_this_machine(host) || !text(header::ORIGIN).is_none_or(is_own_page) {
        let detail = "a request without a token must come from a program on this machine";
        return Some(Refusal::forbidden(detail));
    }
    None
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn status(token: Option<&str>, headers: &[(&str, &str)]) -> StatusCode {
        let router = Router::new().route("/status", get(async || "all"));
        let router = guarded(router, token.and_then(Secret::new));
        let mut request = Request::builder().uri("/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a valid request");
        router.oneshot(request).await.expect("it answers").status()
    }

    #[tokio::test]
    async fn with_a_token_only_who_shows_it_is_answered() {
        let token = Some("canary-1");
        for (shown, expected) in [
            ("Bearer canary-1", 200),
            ("Bearer canary-2", 401),
            ("Bearer canary-1 ", 401),
            ("Bearer ", 401),
            ("Basic canary-1", 401),
        ] {
            let headers = [("authorization", shown), ("host", "tasks.example:9800")];
            assert_eq!(status(token, &headers).await, expected, "{shown}");
        }
        assert_eq!(status(token, &[("host", "127.0.0.1")]).await, 401);
    }

    #[tokio::test]
    async fn without_a_token_programs_on_this_machine_are_answered_and_pages_of_others_are_not() {
        for (host, origin, expected) in [
            ("127.0.0.1:9800", None, 200),
            ("localhost:9800", None, 200),
            ("[::1]:9800", None, 200),
            ("127.0.0.1:9800", Some("http://127.0.0.1:9800"), 200),
            ("127.0.0.1:9800", Some("http://evil.example"), 403),
            ("127.0.0.1:9800", Some("null"), 403),
            ("evil.example:9800", None, 403),
            ("evil.example", Some("http://evil.example"), 403),
            ("127.0.0.1.evil.example", None, 403),
        ] {
            let mut headers = vec![("host", host)];
            headers.extend(origin.map(|origin| ("origin", origin)));
            assert_eq!(status(None, &headers).await, expected, "{host} {origin:?}");
        }
    }
}
