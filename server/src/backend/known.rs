//! The new side of a move as an earlier start found it, kept on the old side.
//!
//! Until a task lives on the new side alone, its outage is no outage of the service, and a replica may start in the
//! middle of it. What it would ask the new side at its start, it reads here.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use task_core::ports::{Key, Kind, PortError, PutOptions, StateStore};

use super::Role;
use crate::config::{Backend, Config};

const KEY: (Kind, &str) = (Kind::new("new-side"), "profile");

/// A new side that was there once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// What the configuration says of it. Another one is another side, and has to be there.
    configured: String,
    profile: Value,
}

impl Known {
    /// Reads what the old side has of the configured new side; `None` before it was there once.
    ///
    /// # Errors
    /// As the store.
    pub(super) async fn read(
        old: &dyn StateStore,
        config: &Config,
    ) -> Result<Option<Self>, PortError> {
        let found = old.get(&Key::new(KEY.0, KEY.1)).await?;
        // What cannot be read is found out anew.
        let known = found.and_then(|stored| serde_json::from_slice::<Self>(&stored.value).ok());
        Ok(known.filter(|known| known.configured == configured(config)))
    }

    pub(super) fn new(config: &Config, profile: Value) -> Self {
        let configured = configured(config);
        Self {
            configured,
            profile,
        }
    }

    /// Keeps it on the old side.
    ///
    /// # Errors
    /// As the store.
    pub(super) async fn keep(&self, old: &dyn StateStore) -> Result<(), PortError> {
        let json = serde_json::to_vec(self).expect("text is JSON");
        let key = Key::new(KEY.0, KEY.1);
        old.put(&key, Bytes::from(json), PutOptions::default())
            .await?;
        Ok(())
    }

    /// What the new side is opened for, which may be away if it is known.
    pub(super) fn role(known: Option<&Self>) -> Role<'_> {
        known.map_or(Role::Side, |known| Role::Known(&known.profile))
    }
}

/// The keys that say where the new side is, in one text.
fn configured(config: &Config) -> String {
    let wanted = &config.parallel;
    let name = wanted.new.map_or("", Backend::as_str);
    match wanted.new {
        Some(Backend::Direct) => {
            let redis = config.redis_of_new();
            let (layout, prefix) = (redis.layout.as_str(), &redis.key_prefix);
            format!("{name} {} {layout} {prefix:?}", redis.url)
        }
        Some(Backend::Embedded | Backend::Dapr | Backend::Parallel) | None => name.to_owned(),
    }
}
