//! The load: keep-alive clients on one thread, each with one request under way.
//!
//! It is built to be cheap, since it shares the machine with what it measures: requests are prepared
//! bytes, and of an answer only the status and the length are looked at.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::BenchResult;
use crate::figures::{per_second, percentile_ms};

/// What a client creates.
const DRAFT: &str = r#"{"title":"write the quarterly report","description":"two pages, figures included","priority":3}"#;

/// Room for an answer.
const ANSWER_BYTES: usize = 4096;

/// What the clients ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    /// Creates only.
    Create,
    /// One create, then gets of the created task.
    Get,
    /// In turn: one create, five gets and two status changes of the created task.
    Mix,
}

/// How much they ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// What is answered within a time.
    For(Duration),
    /// A number of requests, all clients together.
    Requests(u64),
}

/// A load to be put on a server.
#[derive(Debug)]
pub(crate) struct Load {
    /// The server.
    pub(crate) address: SocketAddr,
    /// Clients at once.
    pub(crate) clients: u32,
    /// What they ask for.
    pub(crate) script: Script,
    /// How much.
    pub(crate) amount: Amount,
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Requests that were answered as they should be.
    pub(crate) count: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    sorted: Vec<Duration>,
}

impl Answered {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        per_second(self.count, self.elapsed)
    }

    /// The time within which `percent` of the answers came, in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        percentile_ms(&self.sorted, percent)
    }
}

impl Load {
    /// Connects the clients, runs them to the end, and adds up.
    ///
    /// An answer with another status than the expected one is an error.
    pub(crate) fn run(&self) -> BenchResult<Answered> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(self.run_clients())?)
    }

    async fn run_clients(&self) -> io::Result<Answered> {
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            clients.push(Client::connect(self.address).await?);
        }
        let begin = Instant::now();
        let (end, requests) = match self.amount {
            Amount::For(time) => (Some(begin + time), u64::MAX),
            Amount::Requests(count) => (None, count.div_ceil(u64::from(self.clients))),
        };
        let mut running = JoinSet::new();
        for client in clients {
            running.spawn(client.run(self.script, end, requests));
        }
        let mut sorted = Vec::new();
        while let Some(ended) = running.join_next().await {
            sorted.append(&mut ended.map_err(io::Error::other)??);
        }
        let elapsed = begin.elapsed();
        sorted.sort_unstable();
        Ok(Answered {
            count: sorted.len() as u64,
            elapsed,
            sorted,
        })
    }
}

/// One keep-alive connection.
struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
    /// The task that was created last.
    id: String,
}

impl Client {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: Vec::with_capacity(ANSWER_BYTES),
            id: String::new(),
        })
    }

    /// Asks until the end, or as often as it may; answers how long each answer took.
    async fn run(
        mut self,
        script: Script,
        end: Option<Instant>,
        requests: u64,
    ) -> io::Result<Vec<Duration>> {
        let mut times = Vec::new();
        let create = create_request();
        let mut begin = Instant::now();
        for turn in 0..requests {
            match (script, turn % 8) {
                (Script::Create, _) => self.exchange(create.as_bytes(), 201).await.map(drop)?,
                (Script::Get, _) if turn > 0 => self.get().await?,
                (Script::Get, _) | (Script::Mix, 0) => {
                    let body = self.exchange(create.as_bytes(), 201).await?;
                    self.id = id_in(&self.answer[body..])?;
                }
                (Script::Mix, 3) => self.set_status("in_progress").await?,
                (Script::Mix, 6) => self.set_status("completed").await?,
                (Script::Mix, _) => self.get().await?,
            }
            let now = Instant::now();
            times.push(now - begin);
            if end.is_some_and(|end| now >= end) {
                break;
            }
            begin = now;
        }
        Ok(times)
    }

    async fn get(&mut self) -> io::Result<()> {
        let request = format!("GET /tasks/{} HTTP/1.1\r\nhost: bench\r\n\r\n", self.id);
        self.exchange(request.as_bytes(), 200).await.map(drop)
    }

    async fn set_status(&mut self, status: &str) -> io::Result<()> {
        let request = format!(
            "PUT /tasks/{}/status?status={status} HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n",
            self.id
        );
        self.exchange(request.as_bytes(), 200).await.map(drop)
    }

    /// Sends a request and reads its answer; answers where the body begins.
    async fn exchange(&mut self, request: &[u8], expected: u16) -> io::Result<usize> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let head = loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(head) = Head::of(&self.answer) {
                break head;
            }
        };
        while self.answer.len() < head.body + head.length {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if head.status == expected {
            return Ok(head.body);
        }
        let text = String::from_utf8_lossy(&self.answer);
        Err(io::Error::other(format!("not {expected}: {text}")))
    }
}

/// What matters of an answer's head.
struct Head {
    status: u16,
    body: usize,
    length: usize,
}

impl Head {
    /// Reads a head; `None` while it is not complete.
    fn of(answer: &[u8]) -> Option<Self> {
        const LENGTH: &[u8] = b"content-length:";
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let mut lines = answer[..end].split(|byte| *byte == b'\n');
        let status = lines.next()?.get(9..12).and_then(number)?;
        let length = lines
            .filter_map(|line| line.split_at_checked(LENGTH.len()))
            .find(|(name, _)| name.eq_ignore_ascii_case(LENGTH))
            .and_then(|(_, value)| number(value.trim_ascii()));
        Some(Self {
            status: u16::try_from(status).ok()?,
            body: end + 4,
            length: length.unwrap_or(0),
        })
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn create_request() -> String {
    format!(
        "POST /tasks HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{DRAFT}",
        DRAFT.len()
    )
}

/// The id of the task in a body.
fn id_in(body: &[u8]) -> io::Result<String> {
    let text = String::from_utf8_lossy(body);
    let id = text
        .split_once(r#""id":""#)
        .and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()));
    id.ok_or_else(|| io::Error::other(format!("no task: {text}")))
}
