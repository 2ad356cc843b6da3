//! The few requests of Kafka's protocol that the fixture makes itself.
//!
//! From the protocol's reference: a request is its length, API key, version, correlation id and client id,
//! then its body; numbers are big-endian, a text or a list begins with its length.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Buf, BufMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

const METADATA: i16 = 3;
const CREATE_TOPICS: i16 = 19;

/// How many brokers are in service.
pub(super) async fn brokers(port: u16) -> io::Result<usize> {
    let answer = request(port, METADATA, 1, &0_i32.to_be_bytes()).await?;
    Reader(&answer).length()
}

/// How many partitions of a topic have a leader.
pub(super) async fn leaders(port: u16, topic: &str) -> io::Result<usize> {
    let mut body = Vec::new();
    body.put_i32(1);
    put_text(&mut body, topic);
    let answer = request(port, METADATA, 1, &body).await?;
    let mut answer = Reader(&answer);
    for _broker in 0..answer.length()? {
        answer.skip(4)?;
        answer.skip_text()?;
        answer.skip(4)?;
        answer.skip_text()?;
    }
    // The controller, then one topic: its error, its name, and whether it is internal.
    answer.skip(4)?;
    answer.length()?;
    answer.error()?;
    answer.skip_text()?;
    answer.skip(1)?;
    let mut with_leader = 0;
    for _partition in 0..answer.length()? {
        let error = answer.number_16()?;
        answer.skip(4)?;
        let leader = answer.number_32()?;
        for _list in ["replicas", "in sync"] {
            let length = answer.length()?;
            answer.skip(4 * length)?;
        }
        if error == 0 && leader >= 0 {
            with_leader += 1;
        }
    }
    Ok(with_leader)
}

/// Creates a topic with one replica.
pub(super) async fn create_topic(port: u16, name: &str, partitions: u16) -> io::Result<()> {
    const TIMEOUT_MS: i32 = 10_000;
    let mut body = Vec::new();
    body.put_i32(1);
    put_text(&mut body, name);
    body.put_i32(partitions.into());
    body.put_i16(1);
    // No assignment by hand and no configuration.
    body.put_i32(0);
    body.put_i32(0);
    body.put_i32(TIMEOUT_MS);
    let answer = request(port, CREATE_TOPICS, 0, &body).await?;
    let mut answer = Reader(&answer);
    answer.length()?;
    answer.skip_text()?;
    answer.error()
}

async fn request(port: u16, api: i16, version: i16, body: &[u8]) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut message = Vec::new();
        message.put_i16(api);
        message.put_i16(version);
        // The correlation id, and no client id.
        message.put_i32(0);
        message.put_i16(-1);
        message.put_slice(body);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream
            .write_i32(i32::try_from(message.len()).map_err(io::Error::other)?)
            .await?;
        stream.write_all(&message).await?;
        let length = usize::try_from(stream.read_i32().await?).map_err(io::Error::other)?;
        if !(4..=MAX_ANSWER).contains(&length) {
            return Err(malformed());
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        answer.drain(..4);
        Ok(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, exchange).await;
    answer.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("a topic's name has at most 249 bytes");
    body.put_i16(length);
    body.put_slice(text.as_bytes());
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "no answer of Kafka's protocol")
}

/// An answer that is read from its beginning.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn skip(&mut self, bytes: usize) -> io::Result<()> {
        self.0 = self.0.get(bytes..).ok_or_else(malformed)?;
        Ok(())
    }

    fn number_16(&mut self) -> io::Result<i16> {
        self.0.try_get_i16().map_err(|_| malformed())
    }

    fn number_32(&mut self) -> io::Result<i32> {
        self.0.try_get_i32().map_err(|_| malformed())
    }

    /// The length of a list; a missing list is empty.
    fn length(&mut self) -> io::Result<usize> {
        Ok(usize::try_from(self.number_32()?).unwrap_or(0))
    }

    fn skip_text(&mut self) -> io::Result<()> {
        let length = self.number_16()?;
        self.skip(usize::try_from(length).unwrap_or(0))
    }

    fn error(&mut self) -> io::Result<()> {
        match self.number_16()? {
            0 => Ok(()),
            code => Err(io::Error::other(format!("Kafka answers error {code}"))),
        }
    }
}
