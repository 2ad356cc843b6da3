//! The generated client on a channel of ours.

use std::time::Duration;

use dapr::dapr::proto::runtime::v1::dapr_client::DaprClient;
use task_core::ports::{Event, MAX_VALUE_BYTES};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::{API_TOKEN, CurrentTrace, SidecarOptions, TRACEPARENT};
use crate::config::SidecarConfig;
use crate::error::Failure;

/// Largest message in either direction, in bytes; the sidecar's own limit, `--max-body-size`, is the same.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

const _: () = assert!(MAX_VALUE_BYTES < MAX_MESSAGE_BYTES);
const _: () = assert!(Event::MAX_PAYLOAD_BYTES < MAX_MESSAGE_BYTES);

/// A connection is closed when nothing was heard of its other end for this long, ping or not.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// The generated client with our headers on every call. A clone shares the channel.
pub(crate) type Grpc = DaprClient<InterceptedService<Channel, CallHeaders>>;

/// A client whose channel connects when it is first used.
pub(super) fn client(config: &SidecarConfig, options: SidecarOptions) -> Result<Grpc, Failure> {
    let endpoint = Endpoint::from_shared(config.grpc_endpoint.clone());
    let endpoint = endpoint.map_err(Failure::Address)?;
    let endpoint = endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.ping_after)
        .keep_alive_timeout(options.ping_timeout)
        // A subscription may be silent for hours.
        .keep_alive_while_idle(true);
    let endpoint = match config.grpc_endpoint.starts_with("https:") {
        true => endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots()),
        false => Ok(endpoint),
    };
    let channel = endpoint.map_err(Failure::Address)?.connect_lazy();
    let client = DaprClient::with_interceptor(channel, CallHeaders::new(config, options.trace)?);
    Ok(client
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// Adds the API token and the trace context to each call.
#[derive(Debug, Clone)]
pub(crate) struct CallHeaders {
    token: Option<MetadataValue<Ascii>>,
    trace: CurrentTrace,
}

impl CallHeaders {
    fn new(config: &SidecarConfig, trace: CurrentTrace) -> Result<Self, Failure> {
        let header = |text: &str| -> Result<_, Failure> {
            let value = MetadataValue::try_from(text);
            let mut value = value.map_err(|_| Failure::header("the API token"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let token = config.api_token.as_ref();
        let token = token.map(|token| header(token.expose())).transpose()?;
        Ok(Self { token, trace })
    }
}

impl Interceptor for CallHeaders {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert(API_TOKEN, token.clone());
        }
        if let Some(trace) = (self.trace)().and_then(|trace| trace.to_string().parse().ok()) {
            metadata.insert(TRACEPARENT, trace);
        }
        Ok(request)
    }
}
