//! The table of moves: the parallel adapters run every case between two backends, in each stage.
//!
//! A new pair is one more row. Its name is `<old>_to_<new>`, by the rows of the two backends.

use std::sync::Arc;
use std::time::Duration;

use adapters_dapr::Events;
use adapters_direct::redis::RedisLayout;
use task_core::memory::ManualClock;
use task_core::migration::{BusStage, Stage, Way};
use task_core::ports::{BusCapability, StateCapability};

use super::dapr::{Broker, DaprEventBuses, DaprStateStores, Keeper};
use super::{
    BusSides, EmbeddedBackends, KafkaEventBuses, MemoryEventBuses, MemoryStateStores,
    RedisBackends, RedisStreams, StoreSides,
};
use crate::config;
use crate::model::Effort;

/// Two backends, and what is shown of a move between them.
#[derive(Debug)]
pub struct MoveRow<Sides, C: 'static, S: 'static> {
    /// The name under which its trials run, after `parallel_` and before the stage.
    pub name: &'static str,
    /// What both sides can do and a move does not take away, no more and no less.
    pub declares: &'static [C],
    /// Makes both backends for one case.
    pub sides: fn() -> Sides,
    /// The stages that are tried in every run; the others where [`config::PAIRS`] asks for them.
    pub usually: &'static [S],
}

/// A move of records.
pub type StoreMove = MoveRow<StoreSides, StateCapability, Stage>;

/// A move of events.
pub type BusMove = MoveRow<BusSides, BusCapability, BusStage>;

impl<Sides, C, S: Way> MoveRow<Sides, C, S> {
    /// The stages that are tried now.
    #[must_use]
    pub fn stages(&self) -> &'static [S] {
        match config::every_stage_of_every_pair() {
            true => S::ALL,
            false => self.usually,
        }
    }

    /// What is left out now, as a line of a report.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let all = S::ALL.iter().copied();
        let left_out = all.filter(|stage| !self.stages().contains(stage));
        let stages: Vec<&str> = left_out.map(Way::as_str).collect();
        let line = || {
            let stages = stages.join(", ");
            format!("parallel_{} in {stages} ({}=1)", self.name, config::PAIRS)
        };
        (!stages.is_empty()).then(line)
    }

    /// How many random sequences it is tried with: few where even stages are left out.
    #[must_use]
    pub fn effort(&self) -> Effort {
        const FEW: u32 = 4;
        let mut effort = Effort::from_env();
        if self.left_out().is_some() {
            effort.sequences = effort.sequences.min(FEW);
        }
        effort
    }
}

/// Stages that differ in what is read and written.
const BRIEFLY: &[Stage] = &[Stage::DualWrite, Stage::Live, Stage::RampDown];

/// The same for buses.
const BUS_BRIEFLY: &[BusStage] = &[BusStage::Shadow, BusStage::Live];

/// What a move of stores declares that keep nothing.
const VOLATILE: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::Tombstones,
    StateCapability::Publishes,
    StateCapability::Ttl,
    StateCapability::Scan,
];

/// What a move of stores declares that keep everything.
const LASTING: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::Tombstones,
    StateCapability::Publishes,
    StateCapability::Ttl,
    StateCapability::Scan,
    StateCapability::Durable,
];

/// The same where the new side cannot list its records.
const TO_A_SIDECAR: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::Tombstones,
    StateCapability::Publishes,
    StateCapability::Ttl,
    StateCapability::Durable,
];

/// Every move of records that a service can make, but for those to a sidecar.
pub const STORE_MOVES: &[StoreMove] = &[
    MoveRow {
        name: "memory_to_memory",
        declares: VOLATILE,
        sides: || {
            let clock = Arc::<ManualClock>::default();
            StoreSides {
                old: MemoryStateStores::of_clock(&clock),
                new: MemoryStateStores::of_clock(&clock),
                clock: Some(clock),
                late: Duration::ZERO,
            }
        },
        usually: &Stage::ALL,
    },
    MoveRow {
        name: "embedded_to_redis_dapr",
        declares: LASTING,
        sides: || StoreSides {
            old: EmbeddedBackends::in_real_time(),
            new: RedisBackends::fresh(RedisLayout::Dapr),
            clock: None,
            late: Duration::ZERO,
        },
        usually: BRIEFLY,
    },
    MoveRow {
        name: "redis_dapr_to_embedded",
        declares: LASTING,
        sides: || StoreSides {
            old: RedisBackends::fresh(RedisLayout::Dapr),
            new: EmbeddedBackends::in_real_time(),
            clock: None,
            late: Duration::ZERO,
        },
        usually: &[Stage::RampDown],
    },
    MoveRow {
        name: "redis_legacy_to_redis_dapr",
        declares: LASTING,
        sides: || StoreSides {
            old: RedisBackends::fresh(RedisLayout::Legacy),
            new: RedisBackends::fresh(RedisLayout::Dapr),
            clock: None,
            late: Duration::ZERO,
        },
        usually: &Stage::ALL,
    },
];

/// The moves of records to a sidecar.
pub const DAPR_STORE_MOVES: &[StoreMove] = &[
    MoveRow {
        name: "redis_legacy_to_dapr_redis",
        declares: TO_A_SIDECAR,
        sides: || to_a_sidecar(Keeper::Redis),
        usually: &[Stage::Live, Stage::RampDown],
    },
    MoveRow {
        name: "redis_legacy_to_dapr_postgres",
        declares: TO_A_SIDECAR,
        sides: || to_a_sidecar(Keeper::Postgres),
        usually: &[Stage::Live],
    },
];

fn to_a_sidecar(keeper: Keeper) -> StoreSides {
    StoreSides {
        old: RedisBackends::fresh(RedisLayout::Legacy),
        new: DaprStateStores::fresh(keeper, Events::Kept),
        clock: None,
        // What is left of a limit is rounded up to whole seconds.
        late: Duration::from_secs(1),
    }
}

/// Every move of events that a service can make, but for those to a sidecar.
///
/// None promises an order, which a move takes away.
pub const BUS_MOVES: &[BusMove] = &[
    MoveRow {
        name: "memory_to_memory",
        declares: &[BusCapability::DeadLetter],
        sides: || BusSides {
            old: Arc::new(MemoryEventBuses),
            new: Arc::new(MemoryEventBuses),
        },
        usually: BusStage::ALL,
    },
    MoveRow {
        name: "embedded_to_redis_streams",
        declares: &[BusCapability::DeadLetter, BusCapability::Durable],
        sides: || BusSides {
            old: EmbeddedBackends::fresh(),
            new: Arc::new(RedisStreams::default()),
        },
        usually: BUS_BRIEFLY,
    },
    MoveRow {
        name: "redis_streams_to_embedded",
        declares: &[BusCapability::DeadLetter, BusCapability::Durable],
        sides: || BusSides {
            old: Arc::new(RedisStreams::default()),
            new: EmbeddedBackends::fresh(),
        },
        usually: &[BusStage::Live],
    },
    MoveRow {
        name: "redis_streams_to_redis_streams",
        declares: &[
            BusCapability::DeadLetter,
            BusCapability::Durable,
            BusCapability::CompetingConsumers,
        ],
        sides: || BusSides {
            old: Arc::new(RedisStreams::default()),
            new: Arc::new(RedisStreams::default()),
        },
        usually: BUS_BRIEFLY,
    },
    MoveRow {
        name: "embedded_to_kafka",
        declares: &[BusCapability::DeadLetter, BusCapability::Durable],
        sides: || BusSides {
            old: EmbeddedBackends::fresh(),
            new: Arc::new(KafkaEventBuses::fresh()),
        },
        usually: &[BusStage::Live],
    },
    MoveRow {
        name: "kafka_to_embedded",
        declares: &[BusCapability::DeadLetter, BusCapability::Durable],
        sides: || BusSides {
            old: Arc::new(KafkaEventBuses::fresh()),
            new: EmbeddedBackends::fresh(),
        },
        usually: &[BusStage::Live],
    },
];

/// The moves of events to a sidecar.
pub const DAPR_BUS_MOVES: &[BusMove] = &[
    MoveRow {
        name: "redis_streams_to_dapr_redis",
        declares: &[BusCapability::DeadLetter, BusCapability::CompetingConsumers],
        sides: || BusSides {
            old: Arc::new(RedisStreams::default()),
            new: Arc::new(DaprEventBuses::fresh(Broker::Redis)),
        },
        usually: BUS_BRIEFLY,
    },
    MoveRow {
        name: "kafka_to_dapr_kafka",
        declares: &[BusCapability::DeadLetter],
        sides: || BusSides {
            old: Arc::new(KafkaEventBuses::fresh()),
            new: Arc::new(DaprEventBuses::fresh(Broker::Kafka)),
        },
        usually: &[BusStage::Live],
    },
];
