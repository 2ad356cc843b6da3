//! A sidecar that is not there.

use std::time::Duration;

use task_core::ports::Outcome;

use super::*;

/// A sidecar on ports that nobody listens on.
fn absent() -> Sidecar {
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener
            .local_addr()
            .expect("an address")
            .port()
            .to_string()
    };
    let variables = [("DAPR_HTTP_PORT", free()), ("DAPR_GRPC_PORT", free())];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let config = SidecarConfig::from_env_vars(variables).expect("valid");
    Sidecar::new(config, SidecarOptions::default()).expect("no connection is made")
}

#[tokio::test]
async fn a_sidecar_that_never_comes_is_named_after_the_limit() {
    let sidecar = absent();
    let limit = Duration::from_millis(250);
    let started = Instant::now();
    let error = sidecar.wait_until_ready(limit).await.expect_err("absent");
    assert!(started.elapsed() >= limit, "it gave up early");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected = format!(
        "dapr open: unavailable: the sidecar at {} is not ready within 250 ms",
        sidecar.config().http_endpoint
    );
    assert_eq!(error.to_string(), expected);
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_call_without_a_sidecar_changed_nothing() {
    let sidecar = absent();
    let call = async |mut grpc: Grpc| grpc.get_metadata(GetMetadataRequest {}).await;
    let failure = sidecar.call(Effect::Write, call).await.expect_err("absent");
    let error = failure.into_port("put");
    let meaning = (error.kind(), error.outcome());
    assert_eq!(
        meaning,
        (ErrorKind::Unavailable, Outcome::NotApplied),
        "{error}"
    );
}

#[test]
fn a_sidecar_shows_no_token() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let _guard = runtime.as_ref().expect("a runtime").enter();
    let variables = [("DAPR_API_TOKEN", "hunter2"), ("APP_API_TOKEN", "hunter3")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = SidecarConfig::from_env_vars(variables).expect("valid");
    let sidecar = Sidecar::new(config, SidecarOptions::default()).expect("no connection is made");
    let shown = format!("{sidecar:?} {:?} {:?}", sidecar.http(), sidecar.grpc);
    assert!(!shown.contains("hunter"), "{shown}");
}
