//! The ways out when a side is gone for good.

use super::canary::Song;
use super::facade::Migration;
use super::{Bucket, Control, MigrationError, Moved, Port, Refusal, Rollback, Side, Stage};

impl Migration {
    /// Lets the side that is left decide about everything.
    pub(super) async fn leave(
        &self,
        side: Side,
        request: Rollback,
    ) -> Result<Moved, MigrationError> {
        self.check(request.port)?;
        if request.port != Port::State {
            let text = format!("{} keeps nothing that could be lost", request.port);
            return Err(MigrationError::Usage(text));
        }
        if let Some(to) = request.to {
            let text = format!("the way back from a lost side has an end of its own, not {to:?}");
            return Err(MigrationError::Usage(text));
        }
        match side {
            Side::New => self.leave_new(request).await,
            Side::Old => self.leave_old(request).await,
        }
    }

    async fn leave_new(&self, request: Rollback) -> Result<Moved, MigrationError> {
        let before = self.control().await?;
        if before.state.reached(Stage::Complete) > 0 {
            let detail = "what is complete is on the new side alone";
            return Err(Refusal::new("no_way_back", detail).into());
        }
        // A side that cannot be reached may be lost; who asks knows more than we.
        if let Ok(Song::Heard) = self.sides.listen(&before).await {
            let detail =
                "the new side answers and has all that is known of it; go back without this";
            return Err(Refusal::new("new_side_lost", detail).into());
        }
        let mut coordinator = self.coordinator().lock().await;
        coordinator.because(request.cause);
        let left = coordinator.leave_new(before.generation).await?;
        let (control, unanswered) = left.ok_or(super::MoveError::Overtaken)?;
        Ok(Moved {
            unanswered,
            ..Moved::between(&before, &control, request.port)
        })
    }

    async fn leave_old(&self, request: Rollback) -> Result<Moved, MigrationError> {
        let Some(before) = self.sides.copied_control().await? else {
            let detail =
                "the new side has no copy of the control record, so it never accepted writes";
            return Err(Refusal::new("new_side_decides", detail).into());
        };
        if before.state.reached(Stage::RampDown) < Bucket::COUNT {
            let detail = format!(
                "the old side alone has the last writes of what is not in rampdown: {}",
                before.state
            );
            return Err(Refusal::new("new_side_decides", detail).into());
        }
        if let Some(stored) = self.sides.old.get(&Control::key()).await?
            && let Ok(found) = Control::decode(&stored.value)
            && found.salt == before.salt
            && found.epoch >= before.epoch
        {
            let detail =
                "the old side answers and has the control record; advance to complete to leave it";
            return Err(Refusal::new("old_side_lost", detail).into());
        }
        let mut coordinator = self.coordinator().lock().await;
        coordinator.because(request.cause);
        let (control, unanswered) = coordinator.leave_old(&before).await?;
        Ok(Moved {
            unanswered,
            ..Moved::between(&before, &control, request.port)
        })
    }
}
