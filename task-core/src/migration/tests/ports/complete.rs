//! The last step of a move, under traffic.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::fakes::Mood;
use super::scene::{Replica, Scene, event, key, record};
use crate::application::Relay;
use crate::background::Background;
use crate::memory::{SeededEntropy, lock};
use crate::migration::{
    Advance, Cause, Confirmation, Fix, JobKind, JobState, Migration, MigrationOptions, Pacing,
    Port, Run, Scope, Share, Stage, VerifyRequest,
};
use crate::ports::{Clock, Commit, EventBus, StateStore, Write};

const WRITERS: u64 = 8;

/// Pause of a writer between two writes.
const PAUSE: Duration = Duration::from_millis(32);

/// How long a bus takes for an event: an outbox is never empty.
const PUBLISHING: Duration = Duration::from_millis(20);

async fn done(migration: &Migration, kind: JobKind) {
    loop {
        let job = migration.job(kind).await.expect("readable");
        match job.expect("it was started").state {
            JobState::Done => return,
            JobState::Running => sleep(Duration::from_millis(50)).await,
            state @ (JobState::Paused | JobState::Failed | JobState::Aborted) => {
                panic!("the job is {state:?}")
            }
        }
    }
}

/// Everything that `complete` depends on but the events.
async fn at_rampdown(replica: &Replica, migration: &Migration) {
    replica.moves_state(Stage::DualWrite).await;
    let started = migration.backfill_start(Pacing::default()).await;
    started.expect("everything is mirrored");
    done(migration, JobKind::Backfill).await;
    let request = VerifyRequest {
        scope: Scope::Full,
        fix: Fix::Nothing,
        pacing: Pacing::default(),
    };
    migration.verify_start(request).await.expect("none runs");
    done(migration, JobKind::Verify).await;
    replica.moves_state(Stage::RampDown).await;
}

fn relays(scene: &Scene, replica: &Replica) -> [Background; 2] {
    let bus: Arc<dyn EventBus> = Arc::clone(&scene.old_bus) as _;
    let leases: [Arc<dyn StateStore>; 2] =
        [Arc::clone(&scene.old) as _, Arc::clone(&scene.new) as _];
    let leases = [(&leases[0], "old"), (&leases[1], "new")];
    let relays = replica.store.relays(&bus, leases, &SeededEntropy::new(9));
    relays.expect("memory can do all").map(Relay::start)
}

/// Writes to one task for ever, and notes the events of what was answered.
async fn write(scene: &Scene, replica: &Replica, number: u64, answered: &Mutex<BTreeSet<Bytes>>) {
    let id = format!("task-{number}");
    sleep(PAUSE * u32::try_from(number).expect("few") / 8).await;
    for rev in 1.. {
        let told = event(&id, rev, scene.clock.now());
        let commit = Commit::of(Write::Put {
            key: key(&id),
            value: record(&id, rev, "a"),
            options: crate::ports::PutOptions::default(),
        });
        let written = replica.store.commit(commit.event(told.clone())).await;
        written.expect("somebody accepts writes");
        lock(answered).insert(told.payload);
        sleep(PAUSE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn complete_is_reached_while_events_come_without_an_end_and_loses_none() {
    let (scene, replica) = Scene::begun().await;
    let options = MigrationOptions::default();
    let migration = Migration::new(&replica.store, Arc::new(SeededEntropy::new(1)), options);
    let _jobs = migration.start();
    at_rampdown(&replica, &migration).await;
    scene.old_bus.publishing.set(Mood::Slow(PUBLISHING));
    let _relays = relays(&scene, &replica);

    let answered = Mutex::default();
    let writers = (0..WRITERS).map(|number| write(&scene, &replica, number, &answered));
    let moving = async {
        sleep(Duration::from_secs(1)).await;
        for _ in 0..200 {
            let waiting = scene.old.pending(None, 1).await.expect("memory");
            assert_eq!(waiting.len(), 1, "the outbox of the old side is empty");
            sleep(Duration::from_millis(5)).await;
        }
        let step = Advance {
            port: Port::State,
            to: Stage::Complete.as_str().to_owned(),
            share: Share::ALL,
            cause: Cause::new("alice", "to see"),
            confirmed: vec![Confirmation::NoWayBack],
            run: Run::Real,
        };
        migration.advance(step).await.expect("nothing is behind");
        sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        () = moving => {}
        _ = join_all(writers) => unreachable!("writers never end"),
    }
    let control = migration.control().await.expect("readable");
    assert_eq!(control.state.to_string(), "complete 100.00 %");

    sleep(Duration::from_secs(5)).await;
    let accepted = scene.old_bus.accepted().into_iter();
    let accepted: BTreeSet<Bytes> = accepted.map(|event| event.payload).collect();
    let answered = lock(&answered).clone();
    assert!(answered.len() > 500, "{} writes", answered.len());
    assert!(answered.is_subset(&accepted), "an event was lost");
}
