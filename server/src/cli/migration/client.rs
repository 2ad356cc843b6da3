//! Asks the admin routes of a service.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use task_core::ports::Secret;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admin::{AdminProblem, REQUEST_TIMEOUT};

/// Where a service has its admin routes, unless it is told otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "http://127.0.0.1:9800";

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The admin routes of a service.
#[derive(Debug)]
pub(super) struct Client {
    address: String,
    host: String,
    port: u16,
    path: String,
    token: Option<Secret>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum AskError {
    /// The address cannot be used.
    #[error("--admin must be an address such as {DEFAULT_ADDRESS}, not {0:?}")]
    Address(String),
    /// The token cannot be sent.
    #[error("the admin token has characters that no header can hold")]
    Token,
    /// Nobody answered.
    #[error("no admin routes at {address}: {reason}")]
    Unreachable {
        /// Where they should be.
        address: String,
        /// What happened instead of an answer.
        reason: String,
    },
    /// Somebody answered something else.
    #[error("{address} is not the admin routes of a task-server: {reason}")]
    Foreign {
        /// Who answered.
        address: String,
        /// What was wrong.
        reason: String,
    },
    /// The service refused.
    #[error("{}", reason(.0))]
    Refused(Box<AdminProblem>),
}

/// The guard that refused, what it found, and what else is in the way.
fn reason(problem: &AdminProblem) -> String {
    let AdminProblem { guard, detail, .. } = problem;
    let mut text = match guard {
        Some(guard) => format!("refused by {guard}: {detail}"),
        None => detail.clone(),
    };
    let others = problem
        .conditions
        .iter()
        .filter(|condition| !condition.holds);
    for other in others.filter(|other| Some(&other.name) != guard.as_ref()) {
        let _ = write!(text, "\n  also {}: {}", other.name, other.detail);
    }
    text
}

impl Client {
    /// A client of an `http` address.
    pub(super) fn new(address: &str, token: Option<Secret>) -> Result<Self, AskError> {
        let refused = || AskError::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| refused())?;
        let authority = uri.authority().ok_or_else(refused)?;
        let is_plain = uri.scheme_str() == Some("http") && uri.query().is_none();
        if !is_plain || authority.as_str().contains('@') {
            return Err(refused());
        }
        Ok(Self {
            address: address.trim_end_matches('/').to_owned(),
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// Looks at something.
    pub(super) async fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, AskError> {
        self.ask(Method::GET, route, None).await
    }

    /// Changes something.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, AskError> {
        let body = serde_json::to_vec(body).expect("a request is text and numbers");
        self.ask(Method::POST, route, Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        route: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, AskError> {
        let request = self.request(method, route, body)?;
        let unreachable = |reason: String| AskError::Unreachable {
            address: self.address.clone(),
            reason,
        };
        let limit = REQUEST_TIMEOUT + CONNECT_TIMEOUT;
        let answered = timeout(limit, self.send(request)).await;
        let silent = |_| unreachable(format!("no answer within {} s", limit.as_secs()));
        let (status, bytes) = answered.map_err(silent)?.map_err(unreachable)?;
        let foreign = |error: serde_json::Error| AskError::Foreign {
            address: self.address.clone(),
            reason: format!("status {status}, {error}"),
        };
        match status.is_success() {
            true => serde_json::from_slice(&bytes).map_err(foreign),
            false => {
                let problem: AdminProblem = serde_json::from_slice(&bytes).map_err(foreign)?;
                Err(AskError::Refused(Box::new(problem)))
            }
        }
    }

    fn request(
        &self,
        method: Method,
        route: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>, AskError> {
        let refused = |_| AskError::Address(self.address.clone());
        let host = HeaderValue::try_from(format!("{}:{}", self.host, self.port));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{route}", self.path))
            .header(HOST, host.map_err(refused)?);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| AskError::Token)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        let request = request.body(body);
        request.map_err(|_| AskError::Address(self.address.clone()))
    }

    /// One request on a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connecting = TcpStream::connect((host, self.port));
        let stream = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => {
                return Err(format!(
                    "no connection within {} s",
                    CONNECT_TIMEOUT.as_secs()
                ));
            }
        };
        let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves while the answer is waited for, and ends with it.
        tokio::pin!(connection, exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                // What had come by then may be the whole answer.
                Ok(()) => exchange.await,
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http() {
        for (good, host, port) in [
            ("http://127.0.0.1:9800", "127.0.0.1", 9800),
            ("http://[::1]:9800/", "[::1]", 9800),
            ("http://tasks.example/admin/", "tasks.example", 80),
        ] {
            let client = Client::new(good, None).expect("usable");
            assert_eq!((&*client.host, client.port), (host, port));
            assert!(!client.path.ends_with('/'));
        }
        for bad in [
            "",
            "127.0.0.1:9800",
            "https://a",
            "http://me:pw@a",
            "http://a?b",
        ] {
            assert!(Client::new(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_is_in_no_message() {
        let client = Client::new(DEFAULT_ADDRESS, Secret::new("canary-5d")).expect("usable");
        let request = client.request(Method::GET, "/migration", None);
        assert!(!format!("{client:?} {request:?}").contains("canary"));
        assert_eq!(
            request.expect("usable").headers()[AUTHORIZATION],
            "Bearer canary-5d"
        );
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let client = Client::new(&format!("http://{address}"), None).expect("usable");
        let error = client.get::<serde_json::Value>("/migration").await;
        let error = error.expect_err("nobody listens");
        assert!(matches!(error, AskError::Unreachable { .. }));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
