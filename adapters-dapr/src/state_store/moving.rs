//! Moves pending events out of a record that is about to be deleted.
//!
//! A deleted task has to be missing at once for every reader of the component, and only an empty value is. So before
//! the record is emptied its events are written to a record of their own, with notes like those of any other write.
//! They are committed whatever becomes of the deletion: the version that it is based on carries them.

use task_core::carried::CarriedEvent;
use task_core::ports::{Key, Kind, PortError};

use super::Shared;
use super::calls::{Life, When};
use super::journal::Op;
use super::names::name_of;
use super::outbox::Outbox;
use super::record::New;
use crate::error::BACKEND;

impl Shared {
    /// Writes a record of these events alone. A crash after it has them published from both, or from either.
    ///
    /// # Errors
    /// As a put; nothing else was written.
    pub(super) async fn move_events(
        &self,
        outbox: &Outbox,
        events: &[CarriedEvent],
        operation: &'static str,
    ) -> Result<(), PortError> {
        let is_moved = |one: &&CarriedEvent| {
            let op = Op::parse(&one.op);
            op.is_some_and(|op| outbox.journal.is_moved(&op))
        };
        // A deletion before this one has done it already.
        let events: Vec<&CarriedEvent> = events.iter().filter(|one| !is_moved(one)).collect();
        if events.is_empty() {
            return Ok(());
        }
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        let id = format!("moved/{:032x}", u128::from_be_bytes(random));
        let name = name_of(&Key::new(Kind::new("journal"), id));
        let origins: Vec<Option<Op>> = events.iter().map(|one| Op::parse(&one.op)).collect();
        let noting = outbox.journal.note(&name, &None, &origins, operation);
        let note = noting.await?;
        let moved = note.ops().zip(events).map(|(op, one)| CarriedEvent {
            op,
            event: one.event.clone(),
        });
        let grave = New::Deleted { tombstone: None };
        let (value, _) = grave.render(
            moved.collect(),
            self.profile.abilities.keeps,
            self.clock.now(),
        );
        let creation = self.profile.abilities.creation;
        let saved = self
            .calls
            .save(&name, &value, When::Missing, creation, Life::Same);
        saved.await.map_err(|failure| {
            let cause = failure.into_port(operation);
            PortError::new(cause.kind(), BACKEND, operation)
                .context("the pending events could not be moved out of the record")
                .retry(cause.retryable())
                .caused_by(cause)
        })?;
        note.landed(None);
        Ok(())
    }
}
