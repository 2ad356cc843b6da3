//! An app beside a sidecar: it records what is sent to it, and answers as a case says.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A listening app; it ends when dropped.
#[derive(Debug)]
pub(crate) struct DaprApp {
    pub(crate) port: u16,
    calls: UnboundedReceiver<Call>,
    server: JoinHandle<()>,
}

impl DaprApp {
    /// Starts an app that answers every call with what a function makes of it, `None` being 404.
    pub(crate) async fn start(
        answer: impl Fn(&Call) -> Option<(StatusCode, Value)> + Clone + Send + Sync + 'static,
    ) -> Self {
        let (sender, calls) = unbounded_channel();
        let handle = move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let call = Call {
                path: uri.path().to_owned(),
                headers,
                body,
            };
            let (status, body) = answer(&call).unwrap_or((StatusCode::NOT_FOUND, Value::Null));
            // A case may have seen enough.
            let _ = sender.send(call);
            std::future::ready((status, axum::Json(body)))
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(handle);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            port,
            calls,
            server,
        }
    }

    /// The next call of a path; others before it are passed over.
    pub(crate) async fn next(&mut self, path: &str) -> Call {
        loop {
            let call = self.following().await;
            if call.path == path {
                return call;
            }
        }
    }

    /// The next call, whatever it asks for.
    pub(crate) async fn following(&mut self) -> Call {
        let call = tokio::time::timeout(task_tests::wait::DEADLINE, self.calls.recv()).await;
        call.expect("a call comes").unwrap()
    }
}

impl Drop for DaprApp {
    fn drop(&mut self) {
        self.server.abort();
    }
}
