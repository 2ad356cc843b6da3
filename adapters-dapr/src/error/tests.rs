//! The mapping, row by row.

use task_core::ports::Outcome::{self, NotApplied, Unknown};
use task_core::ports::Retry::{self, Maybe, Never};

use super::*;

type Meaning = (ErrorKind, Retry, Outcome);

fn of_write(error: &PortError) -> Meaning {
    (error.kind(), error.retryable(), error.outcome())
}

/// Code, what is said, and what it means for a write.
const STATUSES: &[(Code, &str, Meaning)] = {
    use ErrorKind::{
        Conflict, Corrupt, Denied, Invalid, NotFound, Throttled, Timeout, Unavailable, Unsupported,
    };
    &[
        (Code::Ok, "", (Unavailable, Maybe, Unknown)),
        (Code::Cancelled, "", (Unavailable, Maybe, Unknown)),
        (
            Code::Unknown,
            "h2 protocol error",
            (Unavailable, Maybe, Unknown),
        ),
        (
            Code::Unknown,
            "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found",
            (Unsupported, Never, NotApplied),
        ),
        (
            Code::InvalidArgument,
            "cannot create cloudevent",
            (Invalid, Never, NotApplied),
        ),
        (
            Code::InvalidArgument,
            "pubsub x is not found",
            (Unavailable, Maybe, NotApplied),
        ),
        (
            Code::InvalidArgument,
            "failed finding secret store with key x",
            (Unavailable, Maybe, NotApplied),
        ),
        (Code::DeadlineExceeded, "", (Timeout, Maybe, Unknown)),
        (Code::NotFound, "", (NotFound, Never, NotApplied)),
        (Code::AlreadyExists, "", (Conflict, Never, NotApplied)),
        (Code::PermissionDenied, "", (Denied, Never, NotApplied)),
        (
            Code::Unauthenticated,
            "Unauthorized",
            (Denied, Never, NotApplied),
        ),
        (
            Code::ResourceExhausted,
            "grpc: received message larger than max (5 vs. 4)",
            (Invalid, Never, NotApplied),
        ),
        (Code::ResourceExhausted, "", (Throttled, Maybe, NotApplied)),
        (
            Code::FailedPrecondition,
            "",
            (Unavailable, Maybe, NotApplied),
        ),
        // A conflict only after a second look, and that is the state store's.
        (
            Code::Aborted,
            "possible etag mismatch",
            (Unavailable, Maybe, Unknown),
        ),
        (Code::OutOfRange, "", (Invalid, Never, Unknown)),
        (Code::Unimplemented, "", (Unsupported, Never, NotApplied)),
        (Code::Internal, "i/o timeout", (Unavailable, Maybe, Unknown)),
        (Code::Unavailable, "", (Unavailable, Maybe, Unknown)),
        (Code::DataLoss, "", (Corrupt, Never, Unknown)),
    ]
};

#[test]
fn every_status_has_its_meaning() {
    for (code, message, meaning) in STATUSES {
        let of =
            |effect| Failure::status(Status::new(*code, *message), effect).into_port("publish");
        assert_eq!(of_write(&of(Effect::Write)), *meaning, "{code:?} {message}");
        assert_eq!(of(Effect::Read).outcome(), NotApplied, "{code:?} {message}");
    }
    for code in 0..=16 {
        let code = Code::from(code);
        let rows = STATUSES.iter().filter(|(row, ..)| *row == code);
        assert!(rows.count() > 0, "{code:?} has no row");
    }
}

#[test]
fn a_connection_that_was_never_made_changed_nothing() {
    let mut status = Status::new(Code::Unavailable, "tcp connect error");
    status.set_source(std::sync::Arc::new(ConnectError("refused".into())));
    let error = Failure::status(status, Effect::Write).into_port("publish");
    assert_eq!(
        of_write(&error),
        (ErrorKind::Unavailable, Maybe, NotApplied)
    );
    assert_eq!(
        error.to_string(),
        "dapr publish: unavailable: no connection to the sidecar"
    );
    assert!(error.source().is_some());
}

/// Status, what the sidecar says if it speaks, and what it means for a write.
const ANSWERS: &[(u16, Option<&str>, Meaning)] = {
    use ErrorKind::{Denied, Invalid, NotFound, Throttled, Timeout, Unavailable};
    &[
        (301, None, (Invalid, Never, NotApplied)),
        (400, None, (Invalid, Never, NotApplied)),
        (
            400,
            Some("state store x is not found"),
            (Invalid, Never, NotApplied),
        ),
        (401, Some("invalid api token"), (Denied, Never, NotApplied)),
        (403, None, (Denied, Never, NotApplied)),
        (404, None, (Invalid, Never, NotApplied)),
        (
            404,
            Some("failed getting app id"),
            (NotFound, Never, NotApplied),
        ),
        (408, None, (Timeout, Maybe, NotApplied)),
        (422, None, (Invalid, Never, NotApplied)),
        (425, None, (Unavailable, Maybe, NotApplied)),
        (429, None, (Throttled, Maybe, NotApplied)),
        (500, None, (Unavailable, Maybe, Unknown)),
        (
            500,
            Some("connection refused"),
            (Unavailable, Maybe, Unknown),
        ),
        (
            500,
            Some("circuit breaker is open"),
            (Unavailable, Maybe, NotApplied),
        ),
        (
            500,
            Some("no host found with the given ID"),
            (Unavailable, Maybe, NotApplied),
        ),
        (
            500,
            Some("couldn't find service: x"),
            (Unavailable, Maybe, NotApplied),
        ),
        (
            500,
            Some("context deadline exceeded"),
            (Timeout, Maybe, Unknown),
        ),
        (502, None, (Unavailable, Maybe, Unknown)),
        (503, None, (Unavailable, Maybe, NotApplied)),
        (504, None, (Timeout, Maybe, Unknown)),
    ]
};

#[test]
fn every_answer_has_its_meaning() {
    for (status, message, meaning) in ANSWERS {
        let of = |effect| {
            let sidecar = message.map(|message| SidecarError {
                code: "ERR_DIRECT_INVOKE".to_owned(),
                message: message.to_owned(),
            });
            let status = StatusCode::from_u16(*status).expect("a status");
            let refusal = Refusal {
                status,
                sidecar,
                effect,
            };
            Failure::Refused(refusal).into_port("notify")
        };
        let error = of(Effect::Write);
        assert_eq!(of_write(&error), *meaning, "{status} {message:?}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(
            of(Effect::Read).outcome(),
            NotApplied,
            "{status} {message:?}"
        );
    }
}

#[test]
fn an_app_is_told_from_the_sidecar_by_its_body() {
    let body = br#"{"errorCode":"ERR_DIRECT_INVOKE","message":"no host","details":[]}"#;
    let error = SidecarError::read(body).expect("the sidecar");
    assert_eq!(
        (&*error.code, &*error.message),
        ("ERR_DIRECT_INVOKE", "no host")
    );
    for body in [
        "",
        "{}",
        "[]",
        r#"{"detail":"x"}"#,
        r#"{"errorCode":"mine"}"#,
        r#"{"errorCode":1}"#,
    ] {
        assert_eq!(SidecarError::read(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let message = "ä".repeat(MAX_MESSAGE_CHARS + 1);
    let status = Status::internal(message);
    let error = Failure::status(status, Effect::Read).into_port("get");
    let text = error.to_string();
    assert_eq!(text.matches('ä').count(), MAX_MESSAGE_CHARS);
}

#[test]
fn our_own_deadline_leaves_a_write_open() {
    let limit = Duration::from_secs(2);
    let of = |effect| Failure::NoAnswer { limit, effect }.into_port("put");
    let error = of(Effect::Write);
    assert_eq!(of_write(&error), (ErrorKind::Timeout, Maybe, Unknown));
    assert_eq!(
        error.to_string(),
        "dapr put: timeout: no answer within 2000 ms (outcome unknown)"
    );
    assert_eq!(of(Effect::Read).outcome(), NotApplied);
}
