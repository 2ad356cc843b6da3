//! Two stores in a move, in each of its stages, as one backend under test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use task_core::application::Relay;
use task_core::background::Background;
use task_core::memory::{ManualClock, MemoryEventBus};
use task_core::migration::{
    Bucket, Coordinator, CoordinatorOptions, Member, MemberOptions, MoveError, ParallelStateStore,
    Stage,
};
use task_core::ports::{Clock, EventBus, Kind, StateStore, SystemClock, SystemEntropy};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::conformance::Failure;
use crate::conformance::state_store::{StateStoreBackend, Time};

/// The kinds of the suite.
const KINDS: &[Kind] = &[
    Kind::TASK,
    Kind::new("other"),
    Kind::new("tas"),
    Kind::new("tasks"),
    Kind::listed("listed"),
];

/// How often a replica looks for the next step, so that a case need not wait for it.
pub(super) const BEAT_EVERY: Duration = Duration::from_millis(10);

/// Time between two hand-overs, in which a case gets on.
const STAY: Duration = Duration::from_millis(20);

/// The backends of a move's two sides.
#[derive(Debug)]
pub struct StoreSides {
    /// Where the records come from.
    pub old: Arc<dyn StateStoreBackend>,
    /// Where they go.
    pub new: Arc<dyn StateStoreBackend>,
    /// The clock of both, if it is moved by hand.
    pub clock: Option<Arc<ManualClock>>,
    /// How much later than its original a copy may end, where a side counts time in large units.
    pub late: Duration,
}

/// A move that has come to a stage, with every record in it.
///
/// Nobody may stay in `handoff`: there all records go through it and back, over and over.
#[derive(Debug)]
pub struct ParallelBackends {
    sides: StoreSides,
    stage: Stage,
    bus: Arc<dyn EventBus>,
    joined: Mutex<Option<Joined>>,
    crossing: Mutex<Option<Background>>,
    /// Why records no longer cross.
    stuck: Arc<Mutex<Option<MoveError>>>,
}

/// A replica of the move.
#[derive(Debug)]
struct Joined {
    stores: [Arc<dyn StateStore>; 2],
    /// In the order in which they end.
    running: Vec<Background>,
}

impl ParallelBackends {
    /// A move between two backends; each is opened with it.
    #[must_use]
    pub fn between(sides: StoreSides, stage: Stage) -> Arc<Self> {
        Arc::new(Self {
            sides,
            stage,
            bus: Arc::new(MemoryEventBus::new()),
            joined: Mutex::default(),
            crossing: Mutex::default(),
            stuck: Arc::default(),
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        match &self.sides.clock {
            Some(clock) => Arc::<ManualClock>::clone(clock),
            None => Arc::new(SystemClock),
        }
    }

    async fn join(&self, stores: [Arc<dyn StateStore>; 2]) -> Result<ParallelStateStore, Failure> {
        let mut options = MemberOptions::default();
        options.beat_every = BEAT_EVERY;
        let [old, new] = stores.each_ref().map(Arc::clone);
        let member = Member::new(Arc::clone(&old), options, self.clock(), &SystemEntropy);
        let member = Arc::new(member);
        let store =
            ParallelStateStore::of_kinds(KINDS, old, new, Arc::clone(&member), self.clock())?;
        let leases = [(&stores[0], "old"), (&stores[1], "new")];
        let relays = store.relays(&self.bus, leases, &SystemEntropy)?;
        let mut running = Vec::from(relays.map(Relay::start));
        // What is copied is copied by a replica, so it leaves last.
        running.extend([store.start(), member.start()]);
        *self.joined.lock().await = Some(Joined { stores, running });
        Ok(store)
    }

    /// Goes through every stage before the wanted one.
    async fn advance(&self, store: &ParallelStateStore) -> Result<(), Failure> {
        let mut coordinator = Coordinator::new(store, CoordinatorOptions::default());
        coordinator.init("salt").await?;
        let way = Stage::ALL.into_iter().skip(1);
        for stage in way.filter(|stage| *stage <= self.stage && *stage != Stage::Handoff) {
            coordinator.advance(stage, Bucket::COUNT).await?;
        }
        // The first request is to find the stage adopted.
        let epoch = coordinator.control().await?.epoch;
        store.member().adopted_after(epoch - 1).await;
        Ok(())
    }

    async fn cross(&self, store: &ParallelStateStore) {
        if self.stage != Stage::Handoff {
            return;
        }
        let mut coordinator = Coordinator::new(store, CoordinatorOptions::default());
        let stuck = Arc::clone(&self.stuck);
        let crossing = Background::spawn("crossing", |mut stop| async move {
            while !stop.is_raised() {
                for handed in [Bucket::COUNT, 0] {
                    if let Err(error) = coordinator.advance(Stage::RampDown, handed).await
                        && !is_taken_back(&error)
                    {
                        *stuck.lock().await = Some(error);
                        return;
                    }
                    stop.or(sleep(STAY)).await;
                }
            }
        });
        *self.crossing.lock().await = Some(crossing);
    }

    /// Ends what goes on beside the case, and gives the two stores back.
    async fn leave(&self) -> Option<[Arc<dyn StateStore>; 2]> {
        if let Some(crossing) = self.crossing.lock().await.take() {
            crossing.stop().await;
        }
        let joined = self.joined.lock().await.take()?;
        for running in joined.running {
            running.stop().await;
        }
        Some(joined.stores)
    }
}

/// Whether a busy machine may be to blame, and everything is as before.
fn is_taken_back(error: &MoveError) -> bool {
    matches!(
        error,
        MoveError::Behind { .. } | MoveError::NotAdopted { .. }
    )
}

#[async_trait]
impl StateStoreBackend for ParallelBackends {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        let stores = [self.sides.old.open().await?, self.sides.new.open().await?];
        let store = self.join(stores).await?;
        self.advance(&store).await?;
        self.cross(&store).await;
        Ok(Arc::new(store))
    }

    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        let left = self.leave().await;
        drop(store);
        let [old, new] = left.ok_or_else(|| Failure::new("no store is open"))?;
        let old = self.sides.old.reopen(old).await?;
        let new = self.sides.new.reopen(new).await?;
        let store = self.join([old, new]).await?;
        store.member().adopted_after(0).await;
        self.cross(&store).await;
        Ok(Arc::new(store))
    }

    async fn bus(&self) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(Arc::clone(&self.bus))
    }

    async fn elapse(&self, time: Duration) {
        match &self.sides.clock {
            Some(clock) => clock.advance(time),
            None => {
                let time = time + self.sides.late;
                tokio::join!(self.sides.old.elapse(time), self.sides.new.elapse(time));
            }
        }
    }

    fn time(&self) -> Time {
        match self.sides.clock {
            Some(_) => Time::Moved,
            None => Time::Waited,
        }
    }

    async fn close(&self) {
        drop(self.leave().await);
        tokio::join!(self.sides.old.close(), self.sides.new.close());
        if let Some(error) = self.stuck.lock().await.take() {
            panic!("the records no longer cross: {error}");
        }
    }
}
