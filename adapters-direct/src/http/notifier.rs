//! The notifier that posts to one receiver.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use task_core::ports::{Notification, Notifier, PortError};
use tokio::net::TcpStream;
use url::Url;

use super::HttpConfig;
use super::error::{Failure, Refusal, port_error};

/// Most bytes of an answer's body that are read, so that its connection can serve again.
pub(super) const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Longest time that an answer's body is read for.
const DRAIN_FOR: Duration = Duration::from_millis(100);

/// Connections that wait for the next notification.
const MAX_IDLE_CONNECTIONS: usize = 32;

/// Longest time that a connection waits for the next notification.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// A [`Notifier`] that posts each notification to one address. A clone shares its connections.
///
/// ```
/// use adapters_direct::http::{HttpConfig, HttpNotifier};
/// let config = HttpConfig::new("http://127.0.0.1:9000").unwrap();
/// let notifier = HttpNotifier::new(config).unwrap();
/// ```
#[derive(Clone)]
pub struct HttpNotifier {
    config: HttpConfig,
    client: Client,
}

impl fmt::Debug for HttpNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpNotifier").field(&self.config).finish()
    }
}

impl HttpNotifier {
    /// Prepares the client; no connection is made.
    ///
    /// # Errors
    /// `Unexpected` if the address is `https` and the machine has no root certificates.
    pub fn new(config: HttpConfig) -> Result<Self, PortError> {
        let build = || {
            let client = client(&config, tls(&config)?)?;
            Ok(Self { config, client })
        };
        build().map_err(|failure| port_error("open", failure))
    }

    async fn post(&self, notification: &Notification) -> Result<(), Failure> {
        let key = HeaderValue::from_str(&notification.idempotency_key).map_err(Failure::Key)?;
        let response = self
            .client
            .post(self.config.notify_url().clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("idempotency-key", key)
            .body(notification.body.clone())
            .timeout(self.config.deadline)
            .send()
            .await
            .map_err(|source| Failure::Exchange {
                source,
                deadline: self.config.deadline,
            })?;
        let status = response.status();
        let refusal = (!status.is_success()).then(|| Refusal {
            status,
            retry_after: seconds(response.headers()),
            redirect_host: redirect_host(self.config.notify_url(), response.headers()),
        });
        // The status has decided; that a body is long, slow or torn changes nothing any more.
        let _ = tokio::time::timeout(DRAIN_FOR, drain(response)).await;
        refusal.map_or(Ok(()), |refusal| Err(Failure::Refused(refusal)))
    }

    async fn connect(&self) -> Result<(), Failure> {
        let limit = self.config.connect_timeout;
        let connection = TcpStream::connect(self.config.host_and_port());
        match tokio::time::timeout(limit, connection).await {
            Ok(connected) => connected.map(drop).map_err(Failure::Connect),
            Err(_) => Err(Failure::ConnectTimeout(limit)),
        }
    }
}

#[async_trait]
impl Notifier for HttpNotifier {
    /// Posts once.
    ///
    /// # Cancel safety
    /// A dropped call may have been accepted; send it again with the same key.
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        self.post(notification)
            .await
            .map_err(|failure| port_error("notify", failure))
    }

    /// Opens a TCP connection and closes it.
    async fn check(&self) -> Result<(), PortError> {
        self.connect()
            .await
            .map_err(|failure| port_error("check", failure))
    }
}

/// TLS for this client alone; without `https` it trusts nobody and needs no roots.
fn tls(config: &HttpConfig) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::Roots)?;
    let builder = if config.is_tls() {
        builder.with_platform_verifier().map_err(Failure::Roots)?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

fn client(config: &HttpConfig, tls: ClientConfig) -> Result<Client, Failure> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        // Retries belong to one layer, and it is not this one.
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .build()
        .map_err(Failure::Client)
}

fn seconds(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

fn redirect_host(from: &Url, headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    Some(from.join(location).ok()?.host_str()?.to_owned())
}

/// Reads a body up to the limit. Dropping the response before its end closes the connection.
async fn drain(mut response: Response) {
    let mut left = MAX_RESPONSE_BYTES;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
