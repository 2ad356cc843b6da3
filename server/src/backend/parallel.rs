//! Two backends side by side, while the service moves from one to the other.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use task_core::application::{Relay, TASK_EVENTS_TOPIC, Terms};
use task_core::background::Background;
use task_core::migration::{
    Budgets, COMPARING_GROUP, CoordinatorOptions, Guardian, Listening, Member, MemberOptions,
    Migration, MigrationOptions, ParallelBusOptions, ParallelEventBus, ParallelNotifier,
    ParallelStateStore, Port, ShadowComparison,
};
use task_core::ports::{
    Clock, DeleteOptions, Entropy, ErrorKind, EventBus, Group, Key, Kind, PortError, PutOptions,
    StateStore, SystemEntropy, Topic, WriteMode,
};

use super::known::Known;
use super::{Backend, Consumer, Hears, Parting, Replicas, Role, open_one};
use crate::app::StartError;
use crate::clock::MachineClock;
use crate::config::{self, BusKind, Config};
use crate::metrics::Moving;

const BACKEND: &str = "parallel";

/// Where a record is written on the one side and looked for on the other.
const PROBE: Kind = Kind::new("probe");

/// How long such a record stays if nobody removes it.
const PROBE_KEPT: Duration = Duration::from_secs(60);

/// The bus of both sides, and what compares them.
type Buses = (Arc<ParallelEventBus>, Arc<ShadowComparison>);

/// This process's part in a move.
#[derive(Debug)]
pub struct Parallel {
    store: Arc<ParallelStateStore>,
    member: Arc<Member>,
    migration: Arc<Migration>,
    notifier: Arc<ParallelNotifier>,
    /// Absent where both sides have one bus.
    bus: Option<Buses>,
    old: Arc<dyn StateStore>,
    /// Where the relays' leases are, and their names, old and new.
    leases: [(Arc<dyn StateStore>, &'static str); 2],
    /// Whether there was a control record at the start.
    has_begun: bool,
}

/// What goes on beside the requests, in the order in which it ends.
#[derive(Debug)]
pub(crate) struct Running(Vec<Background>);

/// Opens both sides, and joins the replicas.
pub(super) async fn open(config: &Config) -> Result<Backend, StartError> {
    let (mut old, mut new) = open_both(config).await?;
    hear_as_one(&old.consumer, &new.consumer)?;

    let clock: Arc<dyn Clock> = Arc::new(MachineClock);
    let member = Member::new(
        Arc::clone(&old.store),
        MemberOptions::default(),
        Arc::clone(&clock),
        &SystemEntropy,
    );
    let member = Arc::new(member);
    let stores = (Arc::clone(&old.store), Arc::clone(&new.store));
    let store =
        ParallelStateStore::new(stores.0, stores.1, Arc::clone(&member), Arc::clone(&clock))?;
    // So that a replica of a move that has begun is ready as soon as it listens.
    member.beat().await?;
    let has_begun = member.pin().is_ok();
    let sides = Sides {
        store: Arc::new(store),
        member,
        clock,
        has_begun,
    };
    let parallel = sides.beside(config, &old, &new)?;
    let parting = both(old.parting.take(), new.parting.take());
    let place = format!("from {} to {}", old.place, new.place);
    Ok(Backend {
        store: Arc::<ParallelStateStore>::clone(&parallel.store),
        bus: match &parallel.bus {
            Some((bus, _)) => Arc::<ParallelEventBus>::clone(bus),
            None => old.bus,
        },
        notifier: Arc::<ParallelNotifier>::clone(&parallel.notifier),
        inbox: old.inbox.or(new.inbox),
        replicas: old.replicas,
        consumer: match new.consumer.hears {
            // What a new group hears first on the one side has to be told apart on both.
            Hears::History => new.consumer,
            Hears::News | Hears::After(_) => old.consumer,
        },
        callbacks: old.callbacks.or(new.callbacks),
        parting,
        profile: serde_json::Value::Null,
        parallel: Some(parallel),
        place,
        receiver: old.receiver,
    })
}

/// Opens the old side, and the new one, which may be away if it was there once.
async fn open_both(config: &Config) -> Result<(Backend, Backend), StartError> {
    let wanted = &config.parallel;
    let (old, new) = (wanted.old.zip(wanted.new)).expect("the configuration demands both sides");
    let old = open_one(config, old, &config.direct.redis, Role::Side).await?;
    let known = Known::read(&*old.store, config).await?;
    let mut new = open_one(
        config,
        new,
        config.redis_of_new(),
        Known::role(known.as_ref()),
    )
    .await?;
    match differ(config, &*old.store, &*new.store).await {
        Ok(()) => {
            let found = Known::new(config, new.profile.take());
            if known.as_ref() != Some(&found) {
                found.keep(&*old.store).await?;
            }
        }
        // It differed when it was there.
        Err(StartError::Unfit(error)) if known.is_some() && is_away(&error) => {
            tracing::warn!(%error, "the new side is away; it is used as soon as it is there");
        }
        Err(error) => return Err(error),
    }
    Ok((old, new))
}

fn is_away(error: &PortError) -> bool {
    let kind = error.kind();
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout)
}

/// What the parts of a move have in common.
struct Sides {
    store: Arc<ParallelStateStore>,
    member: Arc<Member>,
    clock: Arc<dyn Clock>,
    has_begun: bool,
}

impl Sides {
    /// Puts the other two ports and who leads them beside the store.
    fn beside(self, config: &Config, old: &Backend, new: &Backend) -> Result<Parallel, PortError> {
        let recorder = self.store.recorder();
        let notifier = ParallelNotifier::new(
            Arc::clone(&old.notifier),
            Arc::clone(&new.notifier),
            Arc::clone(&old.store),
            Arc::clone(&self.member),
            Arc::clone(recorder),
        )?;
        let bus = match is_one_bus(config) {
            true => None,
            false => Some(self.bus(old, new)?),
        };
        let mut options = MigrationOptions::default();
        options.moves = match &bus {
            Some(_) => &[Port::State, Port::Bus, Port::Notifier],
            None => &[Port::State, Port::Notifier],
        };
        let migration = Migration::new(&self.store, Arc::new(SystemEntropy), options);
        Ok(Parallel {
            migration: Arc::new(migration),
            notifier: Arc::new(notifier),
            bus,
            leases: [lease_of(old), lease_of(new)],
            old: Arc::clone(&old.store),
            store: self.store,
            member: self.member,
            has_begun: self.has_begun,
        })
    }

    fn bus(&self, old: &Backend, new: &Backend) -> Result<Buses, PortError> {
        let sides = || (Arc::clone(&old.bus), Arc::clone(&new.bus));
        let bus = ParallelEventBus::new(
            sides().0,
            sides().1,
            Arc::clone(&old.store),
            Arc::clone(&self.member),
            Arc::clone(self.store.recorder()),
            ParallelBusOptions::default(),
        )?;
        let comparison = ShadowComparison::new(
            listening(old),
            listening(new),
            Topic::new(TASK_EVENTS_TOPIC),
            Arc::clone(&self.member),
            Arc::clone(&self.clock),
        );
        Ok((Arc::new(bus), Arc::new(comparison)))
    }
}

/// Whether both sides publish into the same topics of the same brokers, so that there is nothing to move.
fn is_one_bus(config: &Config) -> bool {
    let sides = [config.parallel.old, config.parallel.new];
    sides == [Some(config::Backend::Direct); 2] && config.direct.bus == BusKind::Kafka
}

/// How a side's bus is listened to beside the service.
fn listening(side: &Backend) -> Listening {
    let group = match side.callbacks {
        // A sidecar has one group, which hears nothing of the copies by itself.
        Some(_) => side.consumer.group.clone(),
        None => Group::new(COMPARING_GROUP),
    };
    Listening {
        bus: Arc::clone(&side.bus),
        group,
    }
}

fn lease_of(side: &Backend) -> (Arc<dyn StateStore>, &'static str) {
    match &side.replicas {
        Replicas::Many { leases, lease } => (Arc::clone(leases), lease),
        // Not on a side of a move; it would take its turn alone.
        Replicas::One => (Arc::clone(&side.store), "relay"),
    }
}

fn both(old: Option<Parting>, new: Option<Parting>) -> Option<Parting> {
    match (old, new) {
        (Some(old), Some(new)) => Some(Parting::new(async move {
            old.saved().await.and(new.saved().await)
        })),
        (one, None) | (None, one) => one,
    }
}

/// Refuses two sides on which the service would be two groups: each event would be handled twice.
fn hear_as_one(old: &Consumer, new: &Consumer) -> Result<(), StartError> {
    if old.group == new.group {
        return Ok(());
    }
    let (old, new) = (&old.group, &new.group);
    let reason = format!("the service is the group {old} on the old bus and {new} on the new one");
    Err(StartError::Backend {
        name: BACKEND,
        advice: "run the sidecar with the app id that is the group of the direct backend",
        source: reason.into(),
    })
}

/// Refuses two sides that keep their records in one place: there a copy would be its own original.
async fn differ(
    config: &Config,
    old: &dyn StateStore,
    new: &dyn StateStore,
) -> Result<(), StartError> {
    let refused = |reason: &str, advice| StartError::Backend {
        name: BACKEND,
        advice,
        source: reason.into(),
    };
    if share_records(old, new).await? {
        return Err(refused(
            "what is written on the old side is seen on the new one: both keep tasks in one place",
            "nothing has to be copied: start replicas with the new backend alone, and stop the old ones",
        ));
    }
    let is_one_server = match (old.identity().await?, new.identity().await?) {
        (Some(old), Some(new)) => old == new,
        (Some(_) | None, _) => false,
    };
    if is_one_server && is_one_database(config) {
        return Err(refused(
            "redis_url and new_redis_url are one database, where both layouts have one outbox",
            "choose another database, or change the layout with `task-server migration convert`",
        ));
    }
    Ok(())
}

#[cfg(all(feature = "redis", feature = "http"))]
fn is_one_database(config: &Config) -> bool {
    let sides = [config.parallel.old, config.parallel.new];
    sides == [Some(config::Backend::Direct); 2]
        && super::pairs::have_one_number(&config.direct.redis.url, &config.parallel.redis.url)
}

#[cfg(not(all(feature = "redis", feature = "http")))]
fn is_one_database(_: &Config) -> bool {
    false
}

async fn share_records(old: &dyn StateStore, new: &dyn StateStore) -> Result<bool, PortError> {
    let mut random = [0; 16];
    SystemEntropy.fill(&mut random);
    let mut name = String::new();
    for byte in random {
        let _ = write!(name, "{byte:02x}");
    }
    let key = Key::new(PROBE, name);
    let value = Bytes::from_static(b"{}");
    let options = PutOptions {
        mode: WriteMode::Create,
        ttl: Some(PROBE_KEPT),
    };
    old.put(&key, value, options).await?;
    let seen = new.get(&key).await;
    old.delete(&key, DeleteOptions::default()).await?;
    Ok(seen?.is_some())
}

impl Parallel {
    /// The terms in which changes are made.
    pub(crate) fn terms(&self) -> Arc<dyn Terms> {
        Arc::<Member>::clone(&self.member)
    }

    /// Whether there was a control record at the start.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Where it is kept since when a group hears events.
    ///
    /// Before the move has begun that is the old side itself: it is known before the first request is served.
    pub(crate) fn history(&self) -> Arc<dyn StateStore> {
        match self.has_begun {
            true => Arc::<ParallelStateStore>::clone(&self.store),
            false => Arc::clone(&self.old),
        }
    }

    /// A relay for each side's outbox, which takes turns with that of a service on this side alone.
    pub(crate) fn relays(&self, bus: &Arc<dyn EventBus>) -> Result<Vec<Relay>, PortError> {
        let leases = self.leases.each_ref();
        let leases = leases.map(|(store, name)| (store, *name));
        let relays = self.store.relays(bus, leases, &SystemEntropy)?;
        Ok(relays.into())
    }

    /// Who leads the move when somebody asks for it.
    pub(crate) fn migration(&self) -> Arc<Migration> {
        Arc::clone(&self.migration)
    }

    /// Where its numbers come from.
    pub(crate) fn numbers(&self) -> Moving {
        let comparison = self.bus.as_ref().map(|(_, comparison)| comparison);
        Moving {
            recorder: Arc::clone(self.store.recorder()),
            migration: self.migration(),
            comparison: comparison.map(Arc::clone),
        }
    }

    /// Lets the new side follow the old one, takes part in every step, and works on jobs.
    ///
    /// # Errors
    /// `Unsupported` if the old side cannot hold a lease.
    pub(crate) fn start(&self) -> Result<Running, PortError> {
        let options = CoordinatorOptions::default();
        let guardian = Guardian::new(&self.store, Budgets::default(), options);
        let mut running = vec![
            guardian.start(),
            self.migration.start(),
            self.notifier.start(),
        ];
        if let Some((bus, comparison)) = &self.bus {
            running.push(bus.start());
            running.push(comparison.start(Arc::clone(&self.old), &SystemEntropy)?);
        }
        // What was copied until its end was copied by a replica, so it leaves last.
        running.push(self.store.start());
        running.push(self.member.start());
        Ok(Running(running))
    }
}

impl Running {
    /// Ends one after the other.
    pub(crate) async fn stop(self) {
        for running in self.0 {
            running.stop().await;
        }
    }
}
