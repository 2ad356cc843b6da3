//! The refusals that routes have in common, for the API description only.

use utoipa::IntoResponses;

use super::error::ProblemBody;

/// What any route may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, it is none")]
pub(crate) enum Refused {
    /// An internal error; the cause is in the log
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(ProblemBody<'static>),
    /// Overload, a store that cannot be used, or a deadline; `detail` says when the outcome is unknown
    #[response(
        status = 503,
        content_type = "application/problem+json",
        headers(("Retry-After" = u32, description = "Seconds after which to come again"))
    )]
    Busy(ProblemBody<'static>),
}

/// What a route with a body may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, it is none")]
pub(crate) enum RefusedBody {
    /// A body that is not JSON, or a malformed header
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(ProblemBody<'static>),
    /// The body came too slowly
    #[response(status = 408, content_type = "application/problem+json")]
    Slow(ProblemBody<'static>),
    /// The body is over the limit
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemBody<'static>),
    /// The media type is not JSON
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(ProblemBody<'static>),
    /// Fields that break a rule, all of them; or an `Idempotency-Key` that was used with another body
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
}

/// What a create may answer besides.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, it is none")]
pub(crate) enum Create {
    /// The task of this `Idempotency-Key` was deleted since
    #[response(status = 409, content_type = "application/problem+json")]
    Deleted(ProblemBody<'static>),
}

/// What a change of a task may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, it is none")]
pub(crate) enum Conditional {
    /// A malformed header
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(ProblemBody<'static>),
    /// Task not found
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
    /// No tag of `If-Match` is the task's current one
    #[response(
        status = 412,
        content_type = "application/problem+json",
        headers(("ETag" = String, description = "The task's current revision"))
    )]
    Differs(ProblemBody<'static>),
}
