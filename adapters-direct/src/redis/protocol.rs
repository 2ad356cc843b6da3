//! Finds out why a port does not understand us: it may speak TLS where we do not, or the other way round.
//!
//! Time does not heal that, so it must not be taken for a server that is not there yet. A plain server may wait for more of
//! what is a handshake, and one with TLS hangs up on what is none: neither says what is wrong.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::Address;
use super::tls;

/// Longest time for the question.
const LIMIT: Duration = Duration::from_secs(1);

/// What is wrong with the address, if this is it.
pub(super) async fn misunderstanding(address: &Address) -> Option<&'static str> {
    let asked = async {
        match address.tls {
            true => speaks_plainly(address).await,
            false => speaks_tls(address).await,
        }
    };
    let is_other = timeout(LIMIT, asked).await.ok().flatten()?;
    is_other.then_some(match address.tls {
        true => "it does not speak TLS, begin its address with redis://",
        false => "it speaks TLS, begin its address with rediss://",
    })
}

async fn connect(address: &Address) -> Option<TcpStream> {
    let host_and_port = (address.host.as_ref(), address.port);
    TcpStream::connect(host_and_port).await.ok()
}

/// A server answers every command with a line that says what follows, also one that it refuses.
async fn speaks_plainly(address: &Address) -> Option<bool> {
    let mut socket = connect(address).await?;
    socket.write_all(b"PING\r\n").await.ok()?;
    let first = socket.read_u8().await.ok()?;
    Some(matches!(first, b'+' | b'-'))
}

/// Nobody is trusted, so a handshake fails; what counts is how.
async fn speaks_tls(address: &Address) -> Option<bool> {
    let server = ServerName::try_from(address.host.as_ref()).ok()?.to_owned();
    let connector = tls::trusting_nobody().ok()?;
    let shaken = connector.connect(server, connect(address).await?).await;
    Some(match shaken {
        Ok(_) => true,
        Err(error) => tls::is_refusal(&error) && !tls::is_something_else(&error),
    })
}
