//! A connection for commands that the server holds back: on a shared one, all others would wait too.

use std::time::Duration;

use redis::{Cmd, Value};

use super::dialer::Dialed;
use super::error::{Effect, Failure};

/// A connection that nobody shares. After a failure it is of no use any more.
#[derive(Debug)]
pub(super) struct Dedicated {
    dialed: Dialed,
    limit: Duration,
}

impl Dedicated {
    /// Takes a new connection; each answer may take so long.
    pub(super) fn new(mut dialed: Dialed, limit: Duration) -> Self {
        dialed.multiplexed.set_response_timeout(limit);
        Self { dialed, limit }
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn command(
        &mut self,
        command: &Cmd,
        effect: Effect,
    ) -> Result<Value, Failure> {
        match self.dialed.multiplexed.send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(Failure::Refused { error, effect }),
            Ok(answer) => Ok(answer),
            Err(source) if source.is_timeout() => {
                let limit = self.limit;
                Err(Failure::NoAnswer { limit, effect })
            }
            Err(source) => Err(Failure::Lost { source, effect }),
        }
    }
}
