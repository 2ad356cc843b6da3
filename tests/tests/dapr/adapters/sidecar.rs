//! The way to the sidecar: late, gone, with and without its token, and what it says of itself.

use std::time::Duration;

use adapters_dapr::{DaprSecretStore, SidecarOptions as AdapterOptions};
use task_core::ports::{ErrorKind, SecretName, SecretStore};
use task_tests::backends::dapr::connect;
use task_tests::process::dapr::Component;
use task_tests::process::{RedisServer, Sidecar, SidecarOptions, TestDirectory};

use super::{APP, adapter};

const LONG: Duration = Duration::from_secs(30);

fn memory() -> [Component; 2] {
    [
        Component::in_memory_state("statestore"),
        Component::in_memory_pubsub("pubsub"),
    ]
}

#[tokio::test]
async fn a_sidecar_may_come_late_and_go_and_come_back() {
    let mut sidecar = Sidecar::launch(SidecarOptions::of(APP, memory()));
    let adapter = adapter(&sidecar);
    adapter.wait_until_ready(LONG).await.unwrap();
    adapter.metadata().await.unwrap();

    sidecar.kill();
    let error = adapter.metadata().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let limit = Duration::from_millis(300);
    let error = adapter.wait_until_ready(limit).await.unwrap_err();
    assert!(
        error.to_string().ends_with("is not ready within 300 ms"),
        "{error}"
    );

    sidecar.restart().await;
    adapter.wait_until_ready(LONG).await.unwrap();
    adapter.metadata().await.unwrap();

    sidecar.pause();
    let error = adapter.wait_until_ready(limit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    sidecar.resume();
    adapter.wait_until_ready(LONG).await.unwrap();
}

#[tokio::test]
async fn a_sidecar_waits_for_its_components_and_we_for_it() {
    let mut server = RedisServer::start().await;
    let store = Component::redis_state("statestore", &server.url());
    server.stop().await;
    let sidecar = Sidecar::launch(SidecarOptions::of(APP, [store]));
    let adapter = adapter(&sidecar);
    let limit = Duration::from_secs(1);
    adapter.wait_until_ready(limit).await.unwrap_err();
    server.restart().await;
    adapter.wait_until_ready(LONG).await.unwrap();
    let metadata = adapter.metadata().await.unwrap();
    assert!(metadata.component("statestore").is_some(), "{metadata:?}");
}

#[tokio::test]
async fn metadata_name_the_app_and_what_its_components_can() {
    let server = RedisServer::shared().await;
    let url = server.next_database_url();
    let components = [
        Component::redis_state("statestore", &url),
        Component::redis_pubsub("pubsub", &url),
    ];
    let sidecar = Sidecar::start(SidecarOptions::of(APP, components)).await;
    let metadata = adapter(&sidecar).metadata().await.unwrap();
    assert_eq!(metadata.app_id, APP);
    assert!(metadata.version.starts_with("1."), "{}", metadata.version);
    let store = metadata.component("statestore").unwrap();
    assert_eq!(store.to_string(), "statestore (state.redis v1)");
    assert!(store.can("ETAG") && !store.can("etag"), "{store:?}");
    assert_eq!(metadata.component("pubsub").unwrap().kind, "pubsub.redis");
    assert_eq!(metadata.component("nobody"), None);
}

#[tokio::test]
async fn every_call_shows_the_token_and_without_it_there_is_no_waiting() {
    let directory = TestDirectory::new("secrets");
    let file = directory.path().join("secrets.json");
    std::fs::write(&file, r#"{"api-key": "canary-77"}"#).unwrap();
    let secrets = Component::local_secrets("kubernetes-secrets", &file);
    let sidecar = Sidecar::start(SidecarOptions {
        api_token: Some("apitoken".to_owned()),
        ..SidecarOptions::of(APP, [secrets])
    })
    .await;
    let known = [("DAPR_API_TOKEN", "apitoken")];
    let known = connect(&sidecar, &known, AdapterOptions::default()).unwrap();
    known.wait_until_ready(LONG).await.unwrap();
    let name = SecretName::parse("api-key").unwrap();
    let store = DaprSecretStore::open(&known).await.unwrap();
    let secret = store.get(&name).await.unwrap();
    assert!(secret.matches("canary-77"));

    for environment in [&[][..], &[("DAPR_API_TOKEN", "wrong")]] {
        let stranger = connect(&sidecar, environment, AdapterOptions::default()).unwrap();
        let error = stranger.wait_until_ready(LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let error = DaprSecretStore::open(&stranger).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[tokio::test]
async fn a_missing_secret_is_told_from_a_store_that_is_missing_or_forbidden() {
    let directory = TestDirectory::new("secrets");
    let file = directory.path().join("secrets.json");
    std::fs::write(&file, r#"{"api-key": "canary-77", "other": "x"}"#).unwrap();
    let secrets = |name| Component::local_secrets(name, &file);
    let scopes = "  secrets:
    scopes:
      - storeName: kubernetes-secrets
        defaultAccess: allow
        deniedSecrets: [other]
";
    let get = async |components: &[Component], name: &str| {
        let options = SidecarOptions {
            configuration: scopes.to_owned(),
            ..SidecarOptions::of(APP, components)
        };
        let sidecar = Sidecar::start(options).await;
        let name = SecretName::parse(name).unwrap();
        match DaprSecretStore::open(&adapter(&sidecar)).await {
            Ok(store) => store.get(&name).await.unwrap_err(),
            Err(error) => error,
        }
    };
    let ours = [secrets("kubernetes-secrets")];
    let error = get(&ours, "absent").await;
    assert_eq!(error.to_string(), "dapr get: not found: secret absent");
    let error = get(&ours, "other").await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let missing = "dapr open: not found: the sidecar has no component \"kubernetes-secrets\"";
    let error = get(&[secrets("elsewhere")], "api-key").await;
    assert_eq!(error.to_string(), missing);
    let error = get(&[], "api-key").await;
    assert_eq!(error.to_string(), missing);
}
