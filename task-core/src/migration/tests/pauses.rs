//! Processes that sleep at the worst moment. The model of the protocol has found each of these.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::held::{Call, HeldStore, Moment};
use super::scene::{record, someone, task};
use crate::memory::{ManualClock, MemoryStateStore, SeededEntropy};
use crate::migration::control::{KIND, WaitingFrom, running_key};
use crate::migration::gone::is_left;
use crate::migration::marker::{DIRTY, REVERSE};
use crate::migration::{
    Advance, Bucket, Control, Coordinator, CoordinatorOptions, Member, MemberOptions, Migration,
    MigrationError, MigrationOptions, ParallelStateStore, Port, Run, Share, Stage, Thresholds,
};
use crate::ports::{
    DeleteMode, DeleteOptions, Entropy, Kind, PutOptions, StateStore, Stored, WriteMode,
};

const LEASE: Duration = Duration::from_secs(5);

struct World {
    old: Arc<MemoryStateStore>,
    new: Arc<MemoryStateStore>,
    clock: Arc<ManualClock>,
    entropy: SeededEntropy,
}

/// A replica that does nothing by itself.
struct Replica {
    old: Arc<HeldStore>,
    new: Arc<HeldStore>,
    member: Arc<Member>,
    store: Arc<ParallelStateStore>,
}

impl World {
    /// One record on both sides, in a stage.
    async fn at(stage: Stage) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = || Arc::new(MemoryStateStore::new(Arc::clone(&clock) as _));
        let world = Self {
            old: store(),
            new: store(),
            clock: Arc::clone(&clock),
            entropy: SeededEntropy::new(1),
        };
        let replica = world.replica();
        let coordinator = Coordinator::new(&replica.store, CoordinatorOptions::default());
        let control = coordinator.init("salt").await.expect("the first one");
        let key = task(0);
        for side in [&world.old, &world.new] {
            let first = side.put(&key, value(1), PutOptions::default());
            let _ = first.await.expect("memory");
        }
        world.step(&control, stage, None).await;
        world
    }

    fn replica(&self) -> Replica {
        let held = |inner: &Arc<MemoryStateStore>| Arc::new(HeldStore::new(Arc::clone(inner) as _));
        let (old, new) = (held(&self.old), held(&self.new));
        let member = Arc::new(Member::new(
            Arc::clone(&old) as _,
            MemberOptions::default(),
            Arc::clone(&self.clock) as _,
            &self.entropy,
        ));
        let store = ParallelStateStore::new(
            Arc::clone(&old) as _,
            Arc::clone(&new) as _,
            Arc::clone(&member),
            Arc::clone(&self.clock) as _,
        );
        Replica {
            old,
            new,
            member,
            store: Arc::new(store.expect("memory can do all")),
        }
    }

    /// A replica that has adopted the present stage.
    async fn joined(&self) -> Replica {
        let replica = self.replica();
        replica.member.beat().await.expect("memory");
        replica
    }

    /// Changes the control record as a coordinator that has waited for whom it had to.
    async fn step(&self, from: &Control, stage: Stage, waiting: Option<WaitingFrom>) -> Control {
        let mut next = from.next();
        next.waiting_from = waiting;
        next.state = Thresholds::default();
        for stage in Stage::ALL.into_iter().skip(1).take(stage.place()) {
            next.state = next.state.with(stage, Bucket::COUNT).expect("in order");
        }
        let key = Control::key();
        let put = self.old.put(&key, next.encode(), PutOptions::default());
        let _ = put.await.expect("memory");
        next
    }

    async fn control(&self) -> Control {
        let found = self.old.get(&Control::key()).await.expect("memory");
        Control::decode(&found.expect("it has begun").value).expect("ours")
    }

    async fn content(&self, side: &MemoryStateStore) -> Option<Bytes> {
        let found = side.get(&task(0)).await.expect("memory");
        found
            .map(|found| found.value)
            .filter(|value| !is_left(value))
    }
}

fn value(rev: u64) -> Bytes {
    record(&task(0), rev, &format!("title {rev}"))
}

async fn read(replica: &Replica) -> Option<Stored> {
    replica.store.get(&task(0)).await.expect("it is answered")
}

/// Writes over what is there now.
fn write(replica: &Replica, rev: u64) -> tokio::task::JoinHandle<()> {
    let store = Arc::clone(&replica.store);
    tokio::spawn(async move {
        let found = store.get(&task(0)).await.expect("memory").expect("there");
        let mode = WriteMode::Match(found.etag);
        let options = PutOptions { mode, ttl: None };
        let put = store.put(&task(0), value(rev), options).await;
        let _ = put.expect("it is answered");
    })
}

#[tokio::test(start_paused = true)]
async fn what_began_before_a_lease_was_over_is_not_answered_behind_it() {
    let world = World::at(Stage::RampDown).await;
    let replica = world.joined().await;
    let pin = replica.member.pin().expect("a lease");
    replica.member.beat().await.expect("memory");
    assert!(pin.holds(), "the lease was never over");
    sleep(2 * LEASE).await;
    replica.member.beat().await.expect("memory");
    let later = replica.member.pin().expect("a lease again");
    assert!(later.holds());
    assert!(
        !pin.holds(),
        "everything may have moved while nobody waited for it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_slept_behind_its_look_does_not_work_by_what_it_saw() {
    let world = World::at(Stage::RampDown).await;
    let sleeper = world.joined().await;
    let other = world.joined().await;
    let _beats = other.member.start();
    let mut held = sleeper.old.hold(Moment::After, Call::Get(KIND));
    let member = Arc::clone(&sleeper.member);
    let beat = tokio::spawn(async move { member.beat().await });
    held.reached().await;
    let mut coordinator = Coordinator::new(&other.store, CoordinatorOptions::default());
    let early = coordinator.advance(Stage::RampDown, 0).await;
    let _ = early.expect_err("the sleeper is waited for, as long as nobody may write");
    let moved = coordinator.advance(Stage::RampDown, 0).await;
    let moved = moved.expect("the sleeper is gone");
    held.release();
    beat.await.expect("no panic").expect("memory");
    if let Ok(pin) = sleeper.member.pin() {
        let (works_by, now) = (pin.control().epoch, moved.epoch);
        assert!(works_by + 1 >= now, "it works by {works_by} at {now}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_not_undone_by_a_copy_that_began_before_it() {
    let world = World::at(Stage::RampDown).await;
    let (writer, copier) = (world.joined().await, world.replica());
    let control = world.control().await;
    world
        .step(&control, Stage::Handoff, Some(WaitingFrom::RampDown))
        .await;
    copier.member.beat().await.expect("memory");
    let mut copy = copier.old.hold(Moment::Before, Call::Get(DIRTY));
    let copying = Arc::clone(&copier.store);
    let copying = tokio::spawn(async move { copying.sync(&task(0)).await });
    copy.reached().await;
    let mut deletion = writer.old.hold(Moment::After, Call::Write(REVERSE));
    let found = read(&writer).await.expect("it is there");
    let deleting = Arc::clone(&writer.store);
    let deleting = tokio::spawn(async move {
        let options = DeleteOptions {
            mode: DeleteMode::Match(found.etag),
            tombstone: Some(Duration::from_secs(60)),
        };
        deleting.delete(&task(0), options).await
    });
    deletion.reached().await;
    let mut follows = writer.old.hold(Moment::Before, Call::Get(Kind::TASK));
    deletion.release();
    follows.reached().await;
    copy.release();
    let _ = copying.await.expect("no panic");
    follows.release();
    deleting.await.expect("no panic").expect("it is answered");
    assert_eq!(world.content(&world.old).await, None);
    assert_eq!(world.content(&world.new).await, None, "it has come back");
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_is_told_is_on_the_old_side_in_handoff_too() {
    let world = World::at(Stage::RampDown).await;
    let (writer, reader) = (world.joined().await, world.replica());
    let control = world.control().await;
    world
        .step(&control, Stage::Handoff, Some(WaitingFrom::RampDown))
        .await;
    reader.member.beat().await.expect("memory");
    let mut written = writer.new.hold(Moment::After, Call::Write(Kind::TASK));
    let writing = write(&writer, 2);
    written.reached().await;
    let told = read(&reader).await.expect("it is there").value;
    assert_eq!(world.content(&world.old).await, Some(told));
    written.release();
    writing.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_is_told_behind_a_write_that_it_finished_is_on_the_old_side_too() {
    let world = World::at(Stage::RampDown).await;
    let (first, second, reader) = (
        world.joined().await,
        world.joined().await,
        world.joined().await,
    );
    let mut one = first.new.hold(Moment::After, Call::Write(Kind::TASK));
    let writing = write(&first, 2);
    one.reached().await;
    // Of a copy backwards, the last call is the look whether there is another note.
    let mut finished = reader.old.hold(Moment::After, Call::Write(REVERSE));
    let reading = Arc::clone(&reader.store);
    let reading = tokio::spawn(async move { reading.get(&task(0)).await });
    finished.reached().await;
    let mut looked = reader.old.hold(Moment::After, Call::Get(REVERSE));
    finished.release();
    looked.reached().await;
    let mut two = second.new.hold(Moment::After, Call::Write(Kind::TASK));
    let writing_again = write(&second, 3);
    two.reached().await;
    looked.release();
    let told = reading.await.expect("no panic").expect("it is answered");
    assert_eq!(
        world.content(&world.old).await,
        told.map(|stored| stored.value)
    );
    two.release();
    one.release();
    writing.await.expect("no panic");
    writing_again.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_step_is_made_from_the_epoch_that_its_guards_have_looked_at() {
    let world = World::at(Stage::DualWrite).await;
    let (slow, quick) = (world.joined().await, world.joined().await);
    let _beats = [slow.member.start(), quick.member.start()];
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(2));
    let migration = Migration::new(&slow.store, entropy, MigrationOptions::default());
    let mut turn = slow.old.hold(Moment::Before, Call::Write(Kind::LEASE));
    let step = tokio::spawn(async move {
        let request = Advance {
            port: Port::State,
            to: "shadow".to_owned(),
            share: Share::parse("100").expect("a share"),
            cause: someone(),
            confirmed: Vec::new(),
            run: Run::Real,
        };
        migration.advance(request).await
    });
    turn.reached().await;
    // It sleeps behind the look by which it judges until its turn is over.
    let mut judged = slow.old.hold(Moment::After, Call::Get(KIND));
    turn.release();
    judged.reached().await;
    let mut coordinator = Coordinator::new(&quick.store, CoordinatorOptions::default());
    for (stage, buckets) in [(Stage::DualWrite, 0), (Stage::DualWrite, Bucket::COUNT)] {
        let moved = coordinator.advance(stage, buckets).await;
        let _ = moved.expect("nothing stands in the way");
    }
    judged.release();
    let refused = step.await.expect("no panic").expect_err("another epoch");
    assert!(
        matches!(&refused, MigrationError::Refused(refusal) if refusal.guard == "one_coordinator"),
        "{refused:?}"
    );
    assert_eq!(world.control().await.state.reached(Stage::Shadow), 0);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_slept_lets_no_service_write_past_a_new_move() {
    let world = World::at(Stage::DualWrite).await;
    let (slow, quick) = (world.joined().await, world.joined().await);
    let _beats = [slow.member.start(), quick.member.start()];
    let (place, one) = (running_key(), Bytes::from_static(b"1"));
    let running = world.old.put(&place, one, PutOptions::default());
    let _ = running.await.expect("memory");
    let back = Arc::clone(&slow.store);
    // The fence, the record, and the end of the move.
    let mut at = slow.old.hold(Moment::Before, Call::Write(KIND));
    let back = tokio::spawn(async move {
        let mut coordinator = Coordinator::new(&back, CoordinatorOptions::default());
        coordinator.advance(Stage::DualWrite, 0).await
    });
    for _ in 0..2 {
        at.reached().await;
        let next = slow.old.hold(Moment::Before, Call::Write(KIND));
        std::mem::replace(&mut at, next).release();
    }
    at.reached().await;
    let mut coordinator = Coordinator::new(&quick.store, CoordinatorOptions::default());
    let moved = coordinator.advance(Stage::DualWrite, Bucket::COUNT).await;
    let _ = moved.expect("the turn of who sleeps is over");
    at.release();
    let _ = back.await.expect("no panic").expect_err("overtaken");
    let running = world.old.get(&running_key()).await.expect("memory");
    assert!(
        running.is_some(),
        "a service on one side may write past the move"
    );
}
