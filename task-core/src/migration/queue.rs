//! One at a time for each name, in the order in which they came, within this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::memory::lock;

/// Who waits for whom; as many names as there are holders and waiters.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<Box<str>, Queue>>);

/// How many there are, and whose turn it is.
type Queue = (usize, Arc<Turn<()>>);

impl Queues {
    /// Waits until everybody has left who came before.
    ///
    /// # Cancel safety
    /// Who does not wait any more has left.
    pub(super) async fn enter(&self, name: &str) -> Place<'_> {
        let turn = {
            let mut names = lock(&self.0);
            let (count, turn) = names.entry(name.into()).or_default();
            *count += 1;
            Arc::clone(turn)
        };
        let mut place = Place {
            queues: self,
            name: name.into(),
            turn: None,
        };
        place.turn = Some(turn.lock_owned().await);
        place
    }
}

/// A place in a queue, left when dropped; a name is forgotten with the last one.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queues: &'a Queues,
    name: Box<str>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.turn.take());
        let mut names = lock(&self.queues.0);
        if let Some((count, _)) = names.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(&self.name);
            }
        }
    }
}
