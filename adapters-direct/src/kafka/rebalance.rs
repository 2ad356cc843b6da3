//! How a subscription takes partitions over, commits, and lets them go.

use std::collections::BTreeSet;
use std::sync::Arc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use task_core::background::Stop;
use tokio::time::{Instant, sleep, sleep_until};

use super::blocking;
use super::error::{Failure, port_error};
use super::member::{Event, Flow, Loss};
use super::message::Message;
use super::positions::{Positions, Search};
use super::subscription::{PAUSE_AFTER_ERROR, Subscriber};

impl Subscriber {
    /// Notes what the group has done; what it wants is answered when nothing else is half done.
    pub(super) fn note(&mut self, event: Event) {
        let Event::Committed(results) = event else {
            self.pending = Some(event);
            return;
        };
        for (partition, result) in results {
            match result {
                Ok(()) => self.partitions.committed(partition),
                Err(RDKafkaErrorCode::OffsetMetadataTooLarge) => {
                    tracing::warn!(partition, "offsets are committed without metadata");
                    self.partitions.shorten_metadata(partition);
                }
                Err(code) => {
                    self.hindered(Failure::Request(KafkaError::ConsumerCommit(code)));
                    self.partitions.refused(partition);
                }
            }
        }
    }

    /// Does what the group wants.
    pub(super) async fn answer(&mut self, event: Event, stop: &mut Stop) {
        match event {
            Event::Assigned(numbers) => self.take_over(numbers, stop).await,
            Event::Revoked(loss) => self.release(loss).await,
            Event::Committed(_) => self.note(event),
        }
    }

    async fn take_over(&mut self, numbers: Vec<i32>, stop: &mut Stop) {
        let (positions, known) = loop {
            match self.positions(&numbers).await {
                Ok(found) => break found,
                Err(failure) => {
                    self.hindered(failure);
                    if stop.or(sleep(PAUSE_AFTER_ERROR)).await.is_none() {
                        return;
                    }
                }
            }
        };
        self.partitions
            .take_over(positions, |partition| known.contains(&partition));
        if let Err(error) = self.member.assign(self.partitions.offsets()) {
            tracing::error!(%error, group = %self.subscription.group, "partitions are not read");
        }
        // A pause would outlive the rebalance.
        self.member.flow(Flow::Flowing, self.partitions.numbers());
        self.flow = Flow::Flowing;
        let group = &self.subscription.group;
        tracing::info!(topic = %self.subscription.topic, %group, partitions = ?numbers, "assigned");
        // A new group's position is fixed when all that it has is committed.
        self.commit_and_wait().await;
        if let Some(joined) = self.joined.take() {
            // Nobody waits any more if the subscriber was stopped meanwhile.
            let _ = joined.send(());
        }
    }

    /// Where these partitions begin, and which of them the group has committed.
    async fn positions(&self, numbers: &[i32]) -> Result<(Positions, BTreeSet<i32>), Failure> {
        let search = Search::new(&self.brokers, self.subscription.topic.as_str());
        let (numbers, begin) = (numbers.to_vec(), self.begin.clone());
        let consumer = Arc::clone(&self.member.consumer);
        blocking(move || search.of_member(&consumer, &numbers, &begin)).await?
    }

    async fn release(&mut self, loss: Loss) {
        let (topic, group) = (&self.subscription.topic, &self.subscription.group);
        tracing::info!(%topic, %group, ?loss, "partitions are given up");
        match loss {
            Loss::Orderly => {
                self.drain().await;
                self.commit_and_wait().await;
            }
            // Others have them already; what still runs here is answered to nobody.
            Loss::Involuntary => {}
        }
        self.burials.abort_all();
        self.partitions.release();
        self.forget_gone();
        self.member.unassign();
    }

    /// Lets no further call begin and waits, up to the limit, until nothing runs.
    async fn drain(&mut self) {
        let until = Instant::now() + self.config().release_timeout;
        loop {
            // Also what asked for a retry meanwhile.
            self.dispatcher.forget(|_| true);
            if self.dispatcher.in_hand() == 0 && self.burials.is_empty() {
                return;
            }
            tokio::select! {
                Some(handled) = self.dispatcher.next() => self.settle(handled),
                Some(buried) = self.burials.join_next() => self.buried(buried),
                Some(event) = self.member.events.recv() => self.note(event),
                // Whoever has the partition next reads it again.
                message = Message::receive(&self.member.consumer) => drop(message),
                () = sleep_until(until) => {
                    let running = self.dispatcher.in_hand();
                    let limit_ms = self.config().release_timeout.as_millis();
                    tracing::warn!(running, limit_ms, "partitions are given up beside running calls");
                    return;
                }
            }
        }
    }

    /// Sends what has changed, unless a commit is under way.
    pub(super) fn commit(&mut self) {
        if self.partitions.is_committing() {
            return;
        }
        let commit = self.partitions.begin_commit();
        if !commit.is_empty() {
            self.member.commit(commit);
        }
    }

    /// Commits everything that is finished; what that cannot reach in time comes again.
    async fn commit_and_wait(&mut self) {
        let until = Instant::now() + self.config().request_timeout;
        // The commit under way, and then the one of what has changed since.
        for _ in 0..2 {
            self.commit();
            while self.partitions.is_committing() {
                tokio::select! {
                    Some(event) = self.member.events.recv() => self.note(event),
                    message = Message::receive(&self.member.consumer) => self.read(message),
                    () = sleep_until(until) => return,
                }
            }
        }
    }

    /// Ends the subscription: no call runs when it returns, and the group goes on without us.
    pub(super) async fn leave(mut self) {
        self.member.flow(Flow::Paused, self.partitions.numbers());
        self.drain().await;
        self.burials.abort_all();
        while self.dispatcher.in_hand() > 0 {
            if let Some(Event::Revoked(loss)) = self.pending.take() {
                self.release(loss).await;
            } else {
                self.drain().await;
            }
        }
        self.commit_and_wait().await;
        let Self { member, .. } = self;
        // Leaving waits for the brokers.
        if let Err(failure) = blocking(move || drop(member)).await {
            let error = port_error("receive", failure);
            tracing::warn!(%error, "consumer is not closed");
        }
    }
}
