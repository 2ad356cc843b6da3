//! A way to a Redis on which a process is caught in the middle of a step, to be killed there.
//!
//! The commands that go by are read as Redis reads them. One that is waited for is held back, or carried out and not
//! answered, and its connection stays like that until the process is dead. So a program dies at a step that it knows
//! nothing of, and does nothing after it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Redis answers in order, so what answers this has carried out what came before.
const QUESTION: &[u8] = b"*2\r\n$4\r\nPING\r\n$12\r\ncaught-there\r\n";

/// How the answer is known.
const ANSWER: &[u8] = b"caught-there";

/// On which side of a command its process is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Redis does not get the command.
    Before,
    /// Redis has carried it out, and nobody is told.
    Unanswered,
}

/// A command on its way to Redis.
#[derive(Debug)]
pub struct Command<'a>(Vec<&'a [u8]>);

impl Command<'_> {
    /// Whether it is this one, in capital letters as our clients write it.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.0.first() == Some(&name.as_bytes())
    }

    /// Whether one of its words begins so.
    #[must_use]
    pub fn has(&self, beginning: &str) -> bool {
        let beginning = beginning.as_bytes();
        self.0.iter().any(|word| word.starts_with(beginning))
    }

    /// Whether a text stands in one of its words that begins so.
    #[must_use]
    pub fn holds(&self, beginning: &str, text: &str) -> bool {
        let (beginning, text) = (beginning.as_bytes(), text.as_bytes());
        let holds = |word: &&[u8]| word.starts_with(beginning) && contains(word, text);
        self.0.iter().any(holds)
    }
}

/// Says of a command whether it is the one that is waited for.
pub type Recognise = fn(&Command<'_>) -> bool;

/// What the next process is caught at, of all that come by.
#[derive(Debug, Clone, Default)]
pub struct Trap(Arc<Mutex<Option<Bait>>>);

#[derive(Debug)]
struct Bait {
    recognise: Recognise,
    moment: Moment,
    spared: Option<usize>,
    caught: oneshot::Sender<usize>,
}

impl Trap {
    /// Waits for a command of anybody but who is spared; the answer is whose it was, by the number of its way.
    ///
    /// What was waited for before is so no more.
    pub fn set(
        &self,
        recognise: Recognise,
        moment: Moment,
        spared: Option<usize>,
    ) -> oneshot::Receiver<usize> {
        let (caught, is_caught) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Bait {
            recognise,
            moment,
            spared,
            caught,
        });
        is_caught
    }

    /// How many bytes may pass, and what takes the command behind them.
    fn look(&self, bytes: &[u8], client: usize) -> (usize, Option<Bait>) {
        let mut passing = 0;
        while let Some((command, length)) = first_command(&bytes[passing..]) {
            let mut bait = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let takes = |bait: &mut Bait| bait.spared != Some(client) && (bait.recognise)(&command);
            if let Some(bait) = bait.take_if(takes) {
                return (passing, Some(bait));
            }
            passing += length;
        }
        (passing, None)
    }
}

/// A port of loopback that leads one process to a Redis, over a trap.
#[derive(Debug)]
pub struct TrapProxy {
    port: u16,
    accepting: JoinHandle<()>,
}

impl TrapProxy {
    /// Listens, and lets everything pass to a port of loopback that is not waited for.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn to(server: u16, client: usize, trap: &Trap) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let trap = trap.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let trap = trap.clone();
                connections.spawn(async move { lead(socket, server, client, &trap).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            port: address.port(),
            accepting,
        }
    }

    /// `redis://127.0.0.1:PORT/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for TrapProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Joins a process with the server until one of them ends.
async fn lead(mut client: TcpStream, port: u16, number: usize, trap: &Trap) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut there, mut back) = (BytesMut::new(), vec![0; CHUNK]);
    loop {
        there.reserve(CHUNK);
        tokio::select! {
            read = client.read_buf(&mut there) => {
                if read? == 0 {
                    return Ok(());
                }
                let (passing, bait) = trap.look(&there, number);
                server.write_all(&there.split_to(passing)).await?;
                if let Some(bait) = bait {
                    return hold(bait, &there, client, server, number).await;
                }
            }
            read = server.read(&mut back) => {
                match read? {
                    0 => return Ok(()),
                    length => client.write_all(&back[..length]).await?,
                }
            }
        }
    }
}

/// Lets nothing pass any more but the command, if it is to be carried out.
async fn hold(
    bait: Bait,
    bytes: &[u8],
    mut client: TcpStream,
    mut server: TcpStream,
    number: usize,
) -> io::Result<()> {
    if bait.moment == Moment::Unanswered {
        let length = first_command(bytes).map_or(0, |(_, length)| length);
        server.write_all(&bytes[..length]).await?;
        server.write_all(QUESTION).await?;
        let mut answers = BytesMut::new();
        while !contains(&answers, ANSWER) {
            if server.read_buf(&mut answers).await? == 0 {
                return Ok(());
            }
        }
    }
    // Where nobody waits any more, the connection is one that broke.
    if bait.caught.send(number).is_ok() {
        let mut unheard = vec![0; CHUNK];
        while client.read(&mut unheard).await? > 0 {}
    }
    Ok(())
}

/// The first command and its length; `None` if it is not whole yet.
fn first_command(bytes: &[u8]) -> Option<(Command<'_>, usize)> {
    let (count, mut at) = number_behind(b'*', bytes)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, head) = number_behind(b'$', &bytes[at..])?;
        let word = bytes.get(at + head..at + head + length)?;
        bytes.get(at + head + length + 1)?;
        words.push(word);
        at += head + length + 2;
    }
    Some((Command(words), at))
}

/// The number in a line that begins with this sign, and the line's length.
fn number_behind(sign: u8, bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(2).position(|window| window == b"\r\n")?;
    let (first, digits) = bytes[..end].split_first()?;
    assert_eq!(*first, sign, "a client of ours speaks in arrays of texts");
    let digits = std::str::from_utf8(digits).ok()?;
    Some((digits.parse().ok()?, end + 2))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::RedisServer;
    use crate::process::redis::{command, try_command};
    use redis::Value;

    #[test]
    fn a_command_is_read_once_it_is_whole() {
        let set = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n\r\n\r\n";
        let two = [&set[..], b"*1\r\n$4\r\nPING\r\n"].concat();
        for end in 0..set.len() {
            assert!(first_command(&two[..end]).is_none(), "{end}");
        }
        let (first, length) = first_command(&two).unwrap();
        assert_eq!(length, set.len());
        assert!(first.is("SET") && first.has("k") && first.holds("\r", "\n\r"));
        assert!(!first.is("GET") && !first.has("x") && !first.holds("k", "\r"));
        assert!(first_command(&two[length..]).unwrap().0.is("PING"));
    }

    #[tokio::test]
    async fn a_client_is_caught_before_a_command_or_behind_it_and_hears_nothing() {
        let server = RedisServer::start().await;
        let trap = Trap::default();
        let way = TrapProxy::to(server.port(), 7, &trap).await;
        let url = way.url();
        for (moment, key, found) in [
            (Moment::Before, "before", 0),
            (Moment::Unanswered, "behind", 1),
        ] {
            let spared = trap.set(|command| command.is("SET"), moment, Some(7));
            command(&url, &["SET", "spared", "1"]).await;
            drop(spared);
            let caught = trap.set(|command| command.is("SET"), moment, None);
            let words = ["SET", key, "1"];
            tokio::select! {
                answer = try_command(&url, &words) => panic!("it was answered: {answer:?}"),
                client = caught => assert_eq!(client, Ok(7)),
            }
            let there = server.command(&["EXISTS", key]).await;
            assert_eq!(there, Value::Int(found), "{key}");
        }
        command(&url, &["SET", "after it", "1"]).await;
    }
}
