//! Changes how tasks lie in a Redis, in place: strings of the replaced service into Dapr's hashes, and back.
//!
//! Each key changes in one atomic step, and nothing is copied from one server to another. A service sees only one
//! of the forms, so the one on the old form is stopped before.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::redis::{Converted, Redis, RedisConverter, RedisLayout};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use task_core::migration::UnmovedStateStore;
use task_core::ports::{DeleteOptions, ErrorKind, Key, Kind, PortError, StateStore};
use tokio::time::{Instant, sleep};

use super::direct;
use crate::app::StartError;
use crate::config::{self, Config};

/// What a service keeps in its layout. Leases are not among it: they begin anew.
const KINDS: [Kind; 3] = [Kind::TASK, Kind::SEEN, Kind::GROUP];

/// Keys in one page.
const PAGE: usize = 1_000;

/// Keys that are converted at once.
const AT_ONCE: usize = 32;

/// Most keys that a report names.
const MOST_NAMED: usize = 20;

/// The lease that a service on this layout renews about each second.
const LEASE: &str = "relay";

/// How long a lease that nobody gave up is watched: twice as long as it lasts, and a little more.
const WATCH: Duration = Duration::from_secs(7);

/// Pause between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What became of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conversion {
    /// The layout that was wanted.
    pub to: String,
    /// Keys that had the other form and have this one now.
    pub converted: u64,
    /// Keys that have both forms, which differ: nothing was changed.
    pub conflicts: u64,
    /// Keys that could not be converted.
    pub failed: u64,
    /// The first of those that have both forms or failed, each with the reason.
    pub left: Vec<String>,
}

/// Why nothing was converted, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// Redis cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A service works on the form that would go away under it.
    #[error(
        "a service works on the layout {layout}: its relay renews its lease; stop it, \
         because it takes what is converted for missing"
    )]
    InUse {
        /// The layout.
        layout: &'static str,
    },
    /// A move goes on, which has places of its own for everything.
    #[error("a move is under way on this redis; complete it or take it back to off first")]
    Moving,
    /// Redis cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Converts everything, and tells how far it is: keys that were looked at, and how many there were.
///
/// An interrupted run begins again where it was: what is converted has the old form no more.
///
/// # Errors
/// Before anything is changed: `InUse`, `Moving`, `Start`. Later as Redis; what fails for one key is counted.
pub async fn convert(
    config: &Config,
    to: config::RedisLayout,
    mut told: impl FnMut(u64, u64),
) -> Result<Conversion, ConvertError> {
    let (from, to) = match to {
        config::RedisLayout::Legacy => (RedisLayout::Dapr, RedisLayout::Legacy),
        config::RedisLayout::Dapr => (RedisLayout::Legacy, RedisLayout::Dapr),
    };
    let redis = direct::open_redis(config, from).await?;
    is_at_rest(&redis, from).await?;
    let converter = redis.converter();
    let total = count(&converter, from).await?;
    let mut report = Conversion {
        to: name_of(to).to_owned(),
        ..Conversion::default()
    };
    let mut looked_at = 0;
    for kind in KINDS {
        let mut place = None;
        loop {
            let page = converter.keys(kind, from, place.as_deref(), PAGE).await?;
            let results = stream::iter(page.keys)
                .map(async |key| (converter.convert(&key, to).await, key))
                .buffer_unordered(AT_ONCE);
            let mut results = std::pin::pin!(results);
            while let Some((result, key)) = results.next().await {
                report.count(&key, result)?;
                looked_at += 1;
                told(looked_at, total.max(looked_at));
            }
            place = page.next;
            if place.is_none() {
                break;
            }
        }
    }
    Ok(report)
}

impl Conversion {
    fn count(&mut self, key: &Key, result: Result<Converted, PortError>) -> Result<(), PortError> {
        let why = match result {
            Ok(Converted::Done) => {
                self.converted += 1;
                return Ok(());
            }
            // Somebody has deleted it meanwhile, or it came twice.
            Ok(Converted::AlreadyThere | Converted::Missing) => return Ok(()),
            Ok(Converted::Conflict) => {
                self.conflicts += 1;
                "it has both forms, and they differ; delete the wrong one and convert again"
                    .to_owned()
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.failed += 1;
                error.to_string()
            }
            Err(error) => return Err(error),
        };
        if self.left.len() < MOST_NAMED {
            self.left.push(format!("{key}: {why}"));
        }
        Ok(())
    }
}

async fn count(converter: &RedisConverter, from: RedisLayout) -> Result<u64, PortError> {
    let mut count = 0;
    for kind in KINDS {
        let mut place = None;
        loop {
            let page = converter.keys(kind, from, place.as_deref(), PAGE).await?;
            count += u64::try_from(page.keys.len()).unwrap_or(u64::MAX);
            place = page.next;
            if place.is_none() {
                break;
            }
        }
    }
    Ok(count)
}

/// Refuses while somebody works on the form that goes away.
async fn is_at_rest(redis: &Redis, from: RedisLayout) -> Result<(), ConvertError> {
    let store: Arc<dyn StateStore> = Arc::new(redis.state_store());
    let nothing = Key::new(Kind::GROUP, "converted");
    let unmoved = UnmovedStateStore::new(Arc::clone(&store))?;
    // A write that changes nothing, and is refused while a move goes on.
    match unmoved.delete(&nothing, DeleteOptions::default()).await {
        Err(error) if error.kind() == ErrorKind::Fenced => return Err(ConvertError::Moving),
        deleted => deleted?,
    }
    let lease = Key::new(Kind::LEASE, LEASE);
    let leases = redis.lease_store();
    let Some(first) = leases.get(&lease).await? else {
        return Ok(());
    };
    #[derive(Deserialize)]
    struct Held {
        owner: Option<String>,
    }
    let held = serde_json::from_slice::<Held>(&first.value);
    if held.is_ok_and(|held| held.owner.is_none()) {
        return Ok(());
    }
    let began = Instant::now();
    while began.elapsed() < WATCH {
        sleep(LOOK_EVERY).await;
        let now = leases.get(&lease).await?;
        if now.is_some_and(|now| now.value != first.value) {
            let layout = name_of(from);
            return Err(ConvertError::InUse { layout });
        }
    }
    Ok(())
}

fn name_of(layout: RedisLayout) -> &'static str {
    match layout {
        RedisLayout::Legacy => "legacy",
        RedisLayout::Dapr => "dapr",
    }
}
