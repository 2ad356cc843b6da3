//! How a subscription takes partitions over, commits, and lets them go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use task_core::background::Stop;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::blocking;
use super::error::{Failure, port_error};
use super::member::{Event, Flow, Loss, Member};
use super::message::Message;
use super::partitions::Claims;
use super::positions::Positions;
use super::subscription::{PAUSE_AFTER_ERROR, Subscriber};
use super::witness::Look;

/// Longest time of the look with which a member leaves.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What was asked of the logs, and what was found.
pub(super) type Looked = Result<(Claims, BTreeMap<i32, Look>), Failure>;

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
            let _ = joined.send(Ok(()));
        }
    }

    /// Begins to look whether the logs are still those that were read; one look at a time.
    pub(super) fn look(&mut self) {
        let claims = self.partitions.claims();
        if claims.is_empty() || !self.looks.is_empty() {
            return;
        }
        let search = self.search.clone();
        self.looks
            .spawn_blocking(move || search.look(&claims).map(|logs| (claims, logs)));
    }

    /// Notes what was found.
    pub(super) fn looked(&mut self, looked: Result<Looked, JoinError>) {
        let (claims, logs) = match looked {
            Ok(Ok(looked)) => looked,
            Ok(Err(failure)) => return self.hindered(failure),
            Err(error) => return tracing::error!(%error, "kafka call failed"),
        };
        for (partition, log) in logs {
            if let Some(claim) = claims.get(&partition) {
                self.partitions.judge(partition, claim, &log);
            }
        }
    }

    /// Goes on as another member. What librdkafka knows of a topic it keeps, also when it is made again:
    /// it may wait for ever for the leaders that the old one had, and for its partitions.
    pub(super) async fn begin_anew(&mut self) -> Result<(), Failure> {
        let (topic, group) = (&self.subscription.topic, &self.subscription.group);
        let member = Member::new(
            self.config(),
            self.brokers.voice(),
            group.as_str(),
            topic.as_str(),
        )?;
        // What it would read is not what comes next.
        self.member.unassign();
        self.commit_and_wait().await;
        self.burials.abort_all();
        self.partitions.release();
        self.forget_gone();
        self.pending = None;
        let old = std::mem::replace(&mut self.member, member);
        blocking(move || drop(old)).await?;
        self.member.join()
    }

    /// Looks once more, so that what is committed last has the newest proof.
    async fn look_last(&mut self) {
        if !self.partitions.has_more_to_prove() {
            return;
        }
        self.looks.abort_all();
        while self.looks.join_next().await.is_some() {}
        self.look();
        if let Ok(Some(looked)) = timeout(LAST_LOOK, self.looks.join_next()).await {
            self.looked(looked);
        }
    }

    /// Where these partitions begin, and which of them the group has committed.
    async fn positions(&self, numbers: &[i32]) -> Result<(Positions, BTreeSet<i32>), Failure> {
        let search = self.search.clone();
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
        self.look_last().await;
        self.commit_and_wait().await;
        let Self { member, .. } = self;
        // Leaving waits for the brokers.
        if let Err(failure) = blocking(move || drop(member)).await {
            let error = port_error("receive", failure);
            tracing::warn!(%error, "consumer is not closed");
        }
    }
}
