//! The HTTP notifier under test, with a real receiver on a port of its own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use adapters_direct::http::{HttpConfig, HttpNotifier};
use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use task_core::background::Background;
use task_core::ports::{Notification, Notifier};
use tokio::net::TcpListener;

use crate::conformance::Failure;
use crate::conformance::notifier::{NotifierBackend, Refusal};

/// A receiver that honours idempotency keys, and refuses when told to.
#[derive(Debug, Default)]
pub struct HttpNotifiers {
    receiver: Arc<Mutex<Receiver>>,
    serving: tokio::sync::Mutex<Option<Background>>,
}

#[derive(Debug, Default)]
struct Receiver {
    received: Vec<Notification>,
    keys: HashSet<Box<str>>,
    refusal: Option<Refusal>,
}

async fn notify(
    State(receiver): State<Arc<Mutex<Receiver>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
    match receiver.refusal {
        Some(Refusal::Never) => return StatusCode::UNPROCESSABLE_ENTITY,
        Some(Refusal::NotNow) => return StatusCode::SERVICE_UNAVAILABLE,
        None => {}
    }
    let key = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok());
    let is_json = headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/json");
    let (Some(key), true) = (key, is_json) else {
        return StatusCode::BAD_REQUEST;
    };
    if receiver.keys.insert(key.into()) {
        receiver.received.push(Notification {
            idempotency_key: key.into(),
            body,
        });
    }
    StatusCode::OK
}

impl HttpNotifiers {
    /// Starts the receiver alone and answers its port of loopback.
    ///
    /// # Errors
    /// There is no port.
    pub(super) async fn listen(&self) -> Result<u16, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let router = Router::new()
            .route("/notify", post(notify))
            .with_state(Arc::clone(&self.receiver));
        let serving = Background::spawn("receiver", |mut stop| async move {
            let serving = axum::serve(listener, router);
            let serving = serving.with_graceful_shutdown(async move { stop.raised().await });
            serving.await.expect("the receiver serves");
        });
        *self.serving.lock().await = Some(serving);
        Ok(port)
    }
}

#[async_trait]
impl NotifierBackend for HttpNotifiers {
    async fn open(&self) -> Result<Arc<dyn Notifier>, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::new(error.to_string());
        let port = self.listen().await?;
        let config = HttpConfig::new(&format!("http://127.0.0.1:{port}"));
        let config = config.map_err(|error| failed(&error))?;
        let notifier = HttpNotifier::new(config).map_err(|error| failed(&error))?;
        Ok(Arc::new(notifier))
    }

    async fn received(&self) -> Vec<Notification> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.received.clone()
    }

    async fn refuse(&self, refusal: Option<Refusal>) {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.refusal = refusal;
    }

    async fn close(&self) {
        if let Some(serving) = self.serving.lock().await.take() {
            serving.stop().await;
        }
    }
}
