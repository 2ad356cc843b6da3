//! A TCP proxy that is as far away, and as unreliable, as a case wants it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Most bytes that pass at once.
const CHUNK: usize = 64 * 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    There,
    /// From the server to the client.
    Back,
}

/// A proxy on a port of loopback; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    rules: Arc<Rules>,
    accepting: JoinHandle<()>,
}

/// What is done to what passes.
#[derive(Debug)]
struct Rules {
    server: Mutex<SocketAddr>,
    delay_ms: AtomicU64,
    /// Every how many chunks one is cut, by way; 0 is never.
    cut_every: [AtomicU64; 2],
    chunks: [AtomicU64; 2],
    cuts: AtomicU64,
}

impl Proxy {
    /// Listens, and lets everything pass to a port of loopback.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let rules = Arc::new(Rules {
            server: Mutex::new(SocketAddr::from(([127, 0, 0, 1], server))),
            delay_ms: AtomicU64::default(),
            cut_every: Default::default(),
            chunks: Default::default(),
            cuts: AtomicU64::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&rules)));
        Self {
            port: address.port(),
            rules,
            accepting,
        }
    }

    /// The port where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to another port of loopback; those that stand stay where they are.
    pub fn lead_to(&self, server: u16) {
        let led = self.rules.server.lock();
        led.unwrap_or_else(PoisonError::into_inner).set_port(server);
    }

    /// Holds back everything for this long, each way.
    pub fn delay(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.rules.delay_ms.store(time, Ordering::Relaxed);
    }

    /// Lets the first half of every so many-th piece pass that goes this way, and then breaks its connection; 0 stops it.
    pub fn cut_every(&self, way: Way, pieces: u64) {
        self.rules.cut_every[way as usize].store(pieces, Ordering::Relaxed);
    }

    /// How many connections it has broken.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.rules.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, rules: Arc<Rules>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connect(client, Arc::clone(&rules)));
        while connections.try_join_next().is_some() {}
    }
}

/// Joins a client with the server until one of them ends, or the connection is cut.
async fn connect(client: TcpStream, rules: Arc<Rules>) {
    let server = *rules.server.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for socket in [&client, &server] {
        // Nothing is to be slower than the case wants it.
        let _ = socket.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, Way::There, &rules) => {}
        () = pass(from_server, to_client, Way::Back, &rules) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, rules: &Rules) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(length @ 1..) = from.read(&mut chunk).await else {
            return;
        };
        let delay = rules.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let whole = !rules.cuts_now(way);
        let length = if whole { length } else { length / 2 };
        if to.write_all(&chunk[..length]).await.is_err() || !whole {
            return;
        }
    }
}

impl Rules {
    fn cuts_now(&self, way: Way) -> bool {
        let chunk = self.chunks[way as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let every = self.cut_every[way as usize].load(Ordering::Relaxed);
        let cuts = every > 0 && chunk.is_multiple_of(every);
        if cuts {
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
        cuts
    }
}
