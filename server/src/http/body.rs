//! Reads the body of a request: its media type, its size, its time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::error::Problem;

/// What one request may take. The gate puts it into the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Largest body, in bytes.
    pub(super) max_body_bytes: usize,
    /// When the request must be answered.
    pub(super) deadline: Instant,
    /// The time it had in all.
    pub(super) timeout: Duration,
}

/// The text of a JSON body. It is valid UTF-8; whether it is JSON is not known yet.
///
/// # Errors
/// 400 when it is not UTF-8 or ends early, 408 when it comes too slowly, 413 when it is too large,
/// 415 when it is something else than JSON.
#[derive(Debug)]
pub(crate) struct JsonText(Bytes);

impl JsonText {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        // Checked once when it was read; checking again is cheaper than carrying a second type.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes of the text.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl<S: Sync> FromRequest<S> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let allowance = *request
            .extensions()
            .get::<Allowance>()
            .expect("every request passes the gate");
        check_media_type(request.headers())?;
        check_announced_size(request.headers(), allowance.max_body_bytes)?;
        let reading = read(request.into_body(), allowance.max_body_bytes);
        let Ok(read) = timeout_at(allowance.deadline, reading).await else {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the body was not complete within {} ms; nothing was changed",
                    allowance.timeout.as_millis()
                ),
            ));
        };
        let bytes = read?;
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(error) => Err(Problem::bad_request(format!(
                "the body is not UTF-8 at byte {}",
                error.valid_up_to()
            ))),
        }
    }
}

/// Accepts `application/json`, `application/*+json` and a missing media type.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or("");
    let essence = text.split(';').next().unwrap_or("").trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or(("", ""));
    let suffix = subtype
        .rsplit_once('+')
        .map_or(subtype, |(_, suffix)| suffix);
    if kind.eq_ignore_ascii_case("application") && suffix.eq_ignore_ascii_case("json") {
        return Ok(());
    }
    let shown: String = text.chars().take(64).collect();
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("the media type must be application/json, not {shown:?}"),
    ))
}

fn check_announced_size(headers: &HeaderMap, limit: usize) -> Result<(), Problem> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(size) if usize::try_from(size).map_or(true, |size| size > limit) => {
            Err(too_large(limit, format!("announces {size}")))
        }
        _ => Ok(()),
    }
}

/// Reads a body whole. A body of one frame, which most are, is not copied.
async fn read(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body ended early"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let size = first.len().max(all.len()) + data.len();
        if size > limit {
            return Err(too_large(limit, format!("has {size} or more")));
        }
        if first.is_empty() {
            first = data;
            if body.is_end_stream() {
                return Ok(first);
            }
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "called with a fresh text only"
)]
fn too_large(limit: usize, found: String) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("a body has at most {limit} bytes, this one {found}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn accepts(media_type: &str) -> bool {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(media_type).expect("a header value");
        headers.insert(header::CONTENT_TYPE, value);
        check_media_type(&headers).is_ok()
    }

    #[test]
    fn json_in_all_its_names_is_accepted_and_nothing_else() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            "application/cloudevents+json ; charset=utf-8",
        ] {
            assert!(accepts(good), "{good:?} was refused");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonx",
            "application/xml",
            "json",
            "text/json",
        ] {
            assert!(!accepts(bad), "{bad:?} was accepted");
        }
        assert!(check_media_type(&HeaderMap::new()).is_ok());
    }
}
