//! Servers as child processes, and how long each took from its start to its first `200` of `/ready`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use task_tests::process::program;

use crate::{BenchResult, noop, proc};

/// Longest wait for a start or an end.
const DEADLINE: Duration = Duration::from_secs(30);

/// Pause between two looks at `/ready`: far below what is measured.
const PAUSE: Duration = Duration::from_micros(100);

/// A running server, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    time_to_ready: Duration,
}

/// Ports of a service and of the sidecar beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside {
    /// Where the service is to listen.
    pub(crate) port: u16,
    /// The sidecar's HTTP API.
    pub(crate) http: u16,
    /// The sidecar's gRPC API.
    pub(crate) grpc: u16,
}

impl Beside {
    /// As a sidecar's app is told.
    fn tell(self, command: &mut Command) {
        command
            .env("DAPR_HTTP_PORT", self.http.to_string())
            .env("DAPR_GRPC_PORT", self.grpc.to_string());
    }
}

impl Server {
    /// Starts `task-server` with the embedded backend on a data directory.
    pub(crate) fn task_server(data: &Path, workers: usize) -> BenchResult<Self> {
        let mut command = Command::new(program());
        command
            .args(["serve", "--backend", "embedded", "--listen", "127.0.0.1:0"])
            .args(["--log", "error", "--worker-threads", &workers.to_string()])
            .arg("--data-dir")
            .arg(data);
        Self::start(&mut command)
    }

    /// Starts `task-server` with the direct backend; what it depends on is running.
    pub(crate) fn direct(
        redis: &str,
        kafka: &str,
        to: SocketAddr,
        workers: usize,
    ) -> BenchResult<Self> {
        let mut command = Command::new(program());
        command
            .args(["serve", "--backend", "direct", "--listen", "127.0.0.1:0"])
            .args(["--log", "error", "--worker-threads", &workers.to_string()])
            .args(["--redis-url", redis, "--kafka-brokers", kafka])
            .args(["--kafka-create-partitions", "4"])
            .args(["--notification-url", &format!("http://{to}")]);
        Self::start(&mut command)
    }

    /// Starts `task-server` with the Dapr backend beside its sidecar.
    pub(crate) fn dapr(beside: Beside, workers: usize) -> BenchResult<Self> {
        let mut command = Command::new(program());
        command
            .args(["serve", "--backend", "dapr", "--log", "error"])
            .args(["--listen", &format!("127.0.0.1:{}", beside.port)])
            .args(["--worker-threads", &workers.to_string()]);
        beside.tell(&mut command);
        Self::start(&mut command)
    }

    /// Starts the Python service beside its sidecar.
    pub(crate) fn python(interpreter: &Path, beside: Beside, clients: &str) -> BenchResult<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/task_service.py");
        let mut command = Command::new(interpreter);
        command
            .arg(script)
            .args([&*beside.port.to_string(), clients]);
        beside.tell(&mut command);
        Self::start(&mut command)
    }

    /// Starts the bare server.
    pub(crate) fn bare(workers: usize) -> BenchResult<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([noop::ARGUMENT, &workers.to_string()]);
        Self::start(&mut command)
    }

    fn start(command: &mut Command) -> BenchResult<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let begin = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| format!("{:?} cannot be started: {error}", command.get_program()))?;
        let address = child.stdout.take().map(announced);
        // Held from here on, so that it is killed if it does not get ready.
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            time_to_ready: Duration::ZERO,
        };
        let address = address.and_then(|address| address.recv_timeout(DEADLINE).ok());
        let Some(address) = address else {
            return Err(format!("{command:?} does not say where it listens").into());
        };
        server.address = address;
        while !is_ready(address) {
            if begin.elapsed() > DEADLINE {
                return Err(format!("{command:?} does not become ready").into());
            }
            std::thread::park_timeout(PAUSE);
        }
        server.time_to_ready = begin.elapsed();
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the start of the process to its first `200` of `/ready`.
    pub(crate) fn time_to_ready(&self) -> Duration {
        self.time_to_ready
    }

    /// Waits until it does nothing any more; answers how long it went on working.
    pub(crate) fn settle(&self) -> BenchResult<Duration> {
        Ok(proc::settle(self.child.id())?)
    }

    /// Processor time that it has used so far.
    pub(crate) fn processor_time(&self) -> BenchResult<Duration> {
        Ok(proc::processor_time(self.child.id())?)
    }

    /// Its memory now.
    pub(crate) fn memory(&self) -> BenchResult<proc::Memory> {
        Ok(proc::memory(self.child.id())?)
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn stop(mut self) -> BenchResult<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status()?;
        if !sent.success() {
            return Err(format!("cannot signal the server: {sent}").into());
        }
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > DEADLINE {
                return Err("the server does not stop".into());
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads all that a server prints; answers the first address in it.
fn announced(stdout: ChildStdout) -> Receiver<SocketAddr> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let address = line.split_once("http://").map(|(_, rest)| rest.trim());
            if let Some(address) = address.and_then(|address| address.parse().ok()) {
                // Only the first one is waited for.
                let _ = sender.send(address);
            }
        }
    });
    receiver
}

/// One look at `/ready`; whatever goes wrong, it is not ready yet.
fn is_ready(address: SocketAddr) -> bool {
    let look = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        std::io::Result::Ok(status.ends_with(b" 200"))
    };
    look().unwrap_or(false)
}
