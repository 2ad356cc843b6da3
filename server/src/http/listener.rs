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
/// Names the address, why it cannot be had, and the flag that chooses another one.
pub async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| StartError::Listen {
        flag,
        address,
        error,
    })
}

/// Serves until `shutdown_grace` after it was told to stop, then lets running requests end within
/// `shutdown_timeout`.
///
/// Connections beyond `max_connections` wait in the backlog of the operating system. All tasks of
/// connections have ended when this returns.
pub async fn serve(listener: TcpListener, gate: Arc<Gate>, stopping: Stopping) {
    let (mut noticed, counted) = (stopping.clone(), Arc::clone(&gate));
    let telling = async {
        noticed.raised().await;
        let requests = counted.in_work();
        tracing::info!("stopping: not ready, draining {requests} requests");
    };
    tokio::join!(telling, serve_beside(listener, gate, stopping));
}

/// As [`serve`], and leaves it to another listener of the program to tell of the end.
pub(crate) async fn serve_beside(listener: TcpListener, gate: Arc<Gate>, mut stopping: Stopping) {
    let (grace, drain_time) = (gate.limits().shutdown_grace, gate.limits().shutdown_timeout);
    // Load balancers need a moment to see that the service is not ready.
    let closing = async {
        stopping.raised().await;
        sleep(grace).await;
    };
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::select! {
        () = closing => {}
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::config::{Config, Limits};
    use crate::shutdown::{self, Shutdown};

    const REQUEST: &[u8] = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n";

    struct Running {
        address: SocketAddr,
        shutdown: Shutdown,
        serving: JoinHandle<()>,
        entered: Arc<Notify>,
        release: Arc<Notify>,
    }

    /// A service whose one route waits until it is released.
    async fn run(change: impl FnOnce(&mut Limits)) -> Running {
        let mut limits = Config::defaults().limits;
        change(&mut limits);
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (enter, wait) = (Arc::clone(&entered), Arc::clone(&release));
        let held = async move || {
            enter.notify_one();
            wait.notified().await;
            "done"
        };
        let gate = Arc::new(Gate::new(Router::new().route("/held", get(held)), &limits));
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "--listen").await;
        let socket = socket.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let (shutdown, stopping) = shutdown::channel();
        let serving = tokio::spawn(serve(socket, gate, stopping));
        Running {
            address,
            shutdown,
            serving,
            entered,
            release,
        }
    }

    async fn connect(running: &Running, request: &[u8]) -> TcpStream {
        let connected = TcpStream::connect(running.address).await;
        let mut stream = connected.expect("a connection");
        stream.write_all(request).await.expect("a sent request");
        stream
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // A connection that was never accepted ends with a reset.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn a_running_request_is_answered_after_the_request_to_stop() {
        let running = run(|_| {}).await;
        let held = connect(&running, REQUEST).await;
        running.entered.notified().await;
        let idle = connect(&running, b"").await;
        running.shutdown.raise();
        assert_eq!(rest(idle).await, "", "an idle connection is closed at once");
        assert!(TcpStream::connect(running.address).await.is_err());
        running.release.notify_one();
        assert!(rest(held).await.ends_with("done"));
        running.serving.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_cut_off_at_the_shutdown_timeout() {
        let running = run(|limits| limits.shutdown_timeout = Duration::from_millis(50)).await;
        let held = connect(&running, REQUEST).await;
        running.entered.notified().await;
        running.shutdown.raise();
        running.serving.await.expect("no panic");
        assert_eq!(rest(held).await, "");
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_waits_for_a_place() {
        let running = run(|limits| limits.max_connections = 1).await;
        let first = connect(&running, REQUEST).await;
        running.entered.notified().await;
        let second = connect(&running, REQUEST).await;
        let entered = timeout(Duration::from_millis(50), running.entered.notified()).await;
        assert!(entered.is_err(), "the second connection was served");
        drop(first);
        running.entered.notified().await;
        running.release.notify_one();
        running.shutdown.raise();
        assert!(rest(second).await.ends_with("done"));
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_closes_the_connection() {
        let running = run(|limits| limits.header_timeout = Duration::from_millis(50)).await;
        assert_eq!(rest(connect(&running, b"GET /held HT").await).await, "");
        assert_eq!(rest(connect(&running, b"").await).await, "");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_a_way_out() {
        let running = run(|_| {}).await;
        let refused = bind(running.address, "--listen")
            .await
            .expect_err("a used address");
        let expected = format!(
            "cannot listen on {}: address in use; choose another with --listen",
            running.address
        );
        assert_eq!(refused.to_string(), expected);
    }
}
