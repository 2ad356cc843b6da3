//! The sidecar's HTTP API: health, and calls of other apps.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use super::{API_TOKEN, CurrentTrace, SidecarOptions, TRACEPARENT};
use crate::config::SidecarConfig;
use crate::error::{Effect, Failure, Refusal, SidecarError};

/// Most bytes of an answer's body that are read.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Connections that wait for the next call.
const MAX_IDLE_CONNECTIONS: usize = 32;

/// Longest time that a connection waits for the next call.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Answers 204 as soon as the sidecar can be called and its components are there.
const HEALTH: &str = "/v1.0/healthz/outbound";

/// The HTTP client and what its calls carry. A clone shares the connections.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
    endpoint: Arc<str>,
    token: Option<HeaderValue>,
    trace: CurrentTrace,
    call_timeout: Duration,
}

impl Http {
    pub(super) fn new(config: &SidecarConfig, options: SidecarOptions) -> Result<Self, Failure> {
        let header = |text: &str| -> Result<_, Failure> {
            let value = HeaderValue::from_str(text);
            let mut value = value.map_err(|_| Failure::header("the API token"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let token = config.api_token.as_ref();
        Ok(Self {
            client: client(config, options)?,
            endpoint: config.http_endpoint.as_str().into(),
            token: token.map(|token| header(token.expose())).transpose()?,
            trace: options.trace,
            call_timeout: options.call_timeout,
        })
    }

    /// A call of a path, which begins with a slash, with the token and the trace context.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.endpoint);
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.header(API_TOKEN, token.clone());
        }
        match (self.trace)() {
            Some(trace) => request.header(TRACEPARENT, trace.to_string()),
            None => request,
        }
    }

    /// Sends a call once and answers its body, cut at the limit. Anything but 2xx is an error.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        limit: Duration,
        effect: Effect,
    ) -> Result<Bytes, Failure> {
        let failed = |source: reqwest::Error| Failure::exchange(source, limit, effect);
        let response = request.timeout(limit).send().await.map_err(failed)?;
        let status = response.status();
        // The status has decided; that a body is torn changes nothing any more.
        let body = start_of_body(response).await;
        if status.is_success() {
            return Ok(body);
        }
        Err(Failure::Refused(Refusal {
            status,
            sidecar: SidecarError::read(&body),
            effect,
        }))
    }

    /// Asks whether the sidecar's own side is ready.
    pub(super) async fn healthy(&self) -> Result<(), Failure> {
        let request = self.request(Method::GET, HEALTH);
        match self.send(request, self.call_timeout, Effect::Read).await {
            Ok(_) => Ok(()),
            // What it says of itself while it starts.
            Err(Failure::Refused(refusal))
                if refusal.status == StatusCode::INTERNAL_SERVER_ERROR =>
            {
                Err(Failure::Starting)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// TLS for this client alone; without `https` it trusts nobody and needs no roots.
fn tls(config: &SidecarConfig) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::Roots)?;
    let builder = match config.http_endpoint.starts_with("https:") {
        true => builder.with_platform_verifier().map_err(Failure::Roots)?,
        false => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

fn client(config: &SidecarConfig, options: SidecarOptions) -> Result<Client, Failure> {
    Client::builder()
        .tls_backend_preconfigured(tls(config)?)
        .redirect(redirect::Policy::none())
        // Retries belong to one layer, and it is not this one.
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .build()
        .map_err(Failure::Client)
}

/// Reads a body up to the limit. Dropping the response before its end closes the connection.
async fn start_of_body(mut response: Response) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let left = MAX_BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if chunk.len() > left {
            break;
        }
    }
    body.freeze()
}
