//! The way to the sidecar: one gRPC channel, one HTTP client, and what every call carries.
//!
//! The channel connects when it is first used and again whenever it has to, so that a sidecar may come
//! late, go and come back. Each call has a deadline of its own; nothing here repeats one, that is for
//! [`task_core::layer`]. A connection that falls silent is noticed by HTTP/2 pings.
//!
//! Every call carries the sidecar's API token and the caller's trace context, if there are any.
//!
//! *Source:* <https://docs.dapr.io/reference/api/>; daprd 1.16.

mod grpc;
mod http;
mod metadata;
mod trace;

use std::fmt;
use std::time::Duration;

use dapr::dapr::proto::runtime::v1::GetMetadataRequest;
use task_core::ports::{ErrorKind, PortError};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tonic::{Response, Status};

pub(crate) use grpc::Grpc;
pub use metadata::{Component, Metadata, Subscribed};
pub use trace::{CurrentTrace, TRACEPARENT, TraceParent, WithinTrace};

use crate::config::SidecarConfig;
use crate::error::{BACKEND, Effect, Failure};
pub(crate) use http::Http;

/// The header that carries a token, in both directions.
pub const API_TOKEN: &str = "dapr-api-token";

/// Pause between two looks at a sidecar that is not ready.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the sidecar may take, and what its calls belong to.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SidecarOptions {
    /// Longest time until a connection stands.
    pub connect_timeout: Duration,
    /// Longest time of one call, from its start to its answer, unless an adapter has a limit of its own.
    pub call_timeout: Duration,
    /// A connection that is silent for this long is asked whether it lives.
    pub ping_after: Duration,
    /// Longest wait for the answer to that.
    pub ping_timeout: Duration,
    /// Answers the trace context of the task that makes a call.
    pub trace: CurrentTrace,
    /// Handles what the sidecar delivers by callback in the trace that [`Self::trace`] answered there.
    pub within: WithinTrace,
}

impl Default for SidecarOptions {
    /// 1 s to connect, 3 s for a call; a silent connection is given up after 10 s and 5 s more. No traces.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(3),
            ping_after: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(5),
            trace: || None,
            within: |_, work| work,
        }
    }
}

/// A sidecar, connected to as needed. A clone shares the connections.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use adapters_dapr::{Sidecar, SidecarConfig, SidecarOptions};
/// let config = SidecarConfig::from_env_vars([]).unwrap();
/// let sidecar = Sidecar::new(config, SidecarOptions::default()).unwrap();
/// # });
/// ```
#[derive(Clone)]
pub struct Sidecar {
    config: SidecarConfig,
    options: SidecarOptions,
    grpc: Grpc,
    http: Http,
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sidecar")
            .field("config", &self.config)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Sidecar {
    /// Prepares the clients; no connection is made. Needs a tokio runtime.
    ///
    /// # Errors
    /// `Invalid` if an endpoint or a token cannot be used, `Unexpected` if an endpoint is `https` and the
    /// machine has no root certificates.
    pub fn new(config: SidecarConfig, options: SidecarOptions) -> Result<Self, PortError> {
        let clients = || {
            Ok((
                grpc::client(&config, options)?,
                Http::new(&config, options)?,
            ))
        };
        let (grpc, http) = clients().map_err(|failure: Failure| failure.into_port("open"))?;
        Ok(Self {
            config,
            options,
            grpc,
            http,
        })
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &SidecarConfig {
        &self.config
    }

    /// Waits until the sidecar and its components are ready, whether or not it has seen our port.
    ///
    /// # Errors
    /// `Unavailable` after this time, naming the address and what the last look saw; `Denied` at once if
    /// the sidecar does not take our token.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<(), PortError> {
        let end = Instant::now() + limit;
        let mut last = None;
        loop {
            let look = Instant::now();
            match timeout_at(end, self.metadata()).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.kind() == ErrorKind::Denied => return Err(error),
                Ok(Err(error)) => last = Some(error),
                Err(_) => return Err(self.late(limit, last)),
            }
            sleep_until((look + LOOK_EVERY).min(end)).await;
        }
    }

    fn late(&self, limit: Duration, last: Option<PortError>) -> PortError {
        let context = format!(
            "the sidecar at {} is not ready within {} ms",
            self.config.http_endpoint,
            limit.as_millis()
        );
        let late = PortError::new(ErrorKind::Unavailable, BACKEND, "open").context(context);
        match last {
            Some(error) => late.caused_by(error),
            None => late,
        }
    }

    /// Says what the sidecar is and what components it has.
    ///
    /// # Errors
    /// `Unavailable` and `Timeout` without a sidecar that is ready, `Denied` without its token.
    pub async fn metadata(&self) -> Result<Metadata, PortError> {
        let asked = async {
            self.http.healthy().await?;
            let ask = async |mut grpc: Grpc| grpc.get_metadata(GetMetadataRequest {}).await;
            self.call(Effect::Read, ask).await
        };
        let answer = asked.await;
        answer
            .map(Metadata::of)
            .map_err(|failure| failure.into_port("metadata"))
    }

    /// Says whether the sidecar's own side is ready.
    pub(crate) async fn check(&self) -> Result<(), PortError> {
        let healthy = self.http.healthy().await;
        healthy.map_err(|failure| failure.into_port("check"))
    }

    /// Makes one call over gRPC within the usual limit.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect.
    pub(crate) async fn call<T>(
        &self,
        effect: Effect,
        call: impl AsyncFnOnce(Grpc) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let limit = self.options.call_timeout;
        self.call_within(limit, effect, call).await
    }

    /// Makes one call over gRPC within a limit of its own.
    pub(crate) async fn call_within<T>(
        &self,
        limit: Duration,
        effect: Effect,
        call: impl AsyncFnOnce(Grpc) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        match timeout(limit, call(self.grpc.clone())).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Failure::status(status, effect)),
            Err(_) => Err(Failure::NoAnswer { limit, effect }),
        }
    }

    /// How its calls and deliveries belong to traces.
    pub(crate) fn tracing(&self) -> (CurrentTrace, WithinTrace) {
        (self.options.trace, self.options.within)
    }

    /// The client for what the sidecar offers over HTTP alone.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }
}

#[cfg(test)]
mod tests;
