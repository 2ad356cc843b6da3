//! Accepts connections and speaks HTTP/1.1 on them, within limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Gate;
use crate::app::StartError;
use crate::shutdown::Stopping;

/// Largest head of a request, and read buffer of a connection, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Pause after the machine refused a connection, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on an address.
///
/// # Errors
/// Names the address and why it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Listen { address, source })
}

/// Serves until told to stop, then lets running requests end within `shutdown_timeout`.
///
/// Connections beyond `max_connections` wait in the backlog of the operating system. All tasks of
/// connections have ended when this returns.
pub async fn serve(listener: TcpListener, gate: Arc<Gate>, mut stopping: Stopping) {
    let drain_time = gate.limits().shutdown_timeout;
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::select! {
        () = stopping.raised() => {}
        () = accept(&listener, &gate, &graceful, &mut connections) => {}
    }
    // Closed before the drain, so that new clients are refused at once and go elsewhere.
    drop(listener);
    if timeout(drain_time, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            timeout_ms = drain_time.as_millis(),
            "requests were cut off at the end of the shutdown timeout"
        );
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    gate: &Arc<Gate>,
    graceful: &GracefulShutdown,
    connections: &mut JoinSet<()>,
) {
    let places = Arc::new(Semaphore::new(gate.limits().max_connections));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = connection(stream, gate, graceful);
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection(
    stream: TcpStream,
    gate: &Arc<Gate>,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static {
    // Without it a small answer waits for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let timeout = gate.limits().header_timeout;
    let gate = Arc::clone(gate);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let gate = Arc::clone(&gate);
        async move { Ok::<_, std::convert::Infallible>(gate.answer(request.map(Body::new)).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    let serving = graceful.watch(serving);
    async move {
        if let Err(error) = serving.await {
            // The client's own doing: gone, silent, or not speaking HTTP.
            tracing::debug!(%error, "connection ended early");
        }
    }
}

/// Errors that say something about one client and nothing about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
