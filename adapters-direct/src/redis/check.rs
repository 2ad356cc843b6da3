//! Asks a server whether it takes writes, which one that answers may not do.

use redis::Cmd;

use super::connection::Connection;
use super::error::{Effect, Failure};

/// Writes nothing to a key, whatever it holds.
///
/// The server refuses that as any other write: as a replica, without memory, without a disk, with too few
/// replicas. (`a_server_that_refuses_writes_fails_the_check_and_says_why`)
pub(super) async fn takes_writes(connection: &Connection) -> Result<(), Failure> {
    let mut probe = Cmd::new();
    // The name is nobody's in particular: a task that has it is left alone.
    probe.arg("SETRANGE").arg(connection.sample_key());
    probe.arg(0).arg("");
    match connection.command(&probe, Effect::Read).await {
        // It was let through to find that.
        Err(failure) if failure.is_of_type() => Ok(()),
        answer => answer.map(drop),
    }
}
