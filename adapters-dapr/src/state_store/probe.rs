//! What a component can do, found out by doing it.
//!
//! Components declare little, and answer the same request differently: `state.redis` creates a missing key
//! whatever ETag is asked for, others refuse that; some take no empty value. So a scratch key goes through
//! what the contract needs, and a component that does not keep it is not opened.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use task_core::ports::{Entropy, ErrorKind, PortError};

use super::calls::{Calls, Life, When};
use super::record::Keeps;
use crate::error::{BACKEND, Failure};
use crate::sidecar::Component;

/// How a key is created only if it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Creation {
    /// With an ETag that no key has, which `state.redis` takes for a missing one. It must never be asked
    /// for first-write: it would refuse plain saves of the key from then on.
    Sentinel,
    /// First-write and no ETag.
    FirstWrite,
}

/// What a component can do, as far as adapters have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Abilities {
    pub(super) creation: Creation,
    pub(super) keeps: Keeps,
}

/// What a component has to declare.
const NEEDED: [&str; 2] = ["ETAG", "TTL"];

/// How long a scratch key stays if the process dies beside it, in seconds.
const SCRATCH: Life = Life::Seconds(60);

/// Finds out what a component can do.
///
/// # Errors
/// `Unsupported` with what is missing.
pub(super) async fn probe(
    calls: &Calls,
    component: &Component,
    entropy: &dyn Entropy,
) -> Result<Abilities, PortError> {
    let missing = NEEDED.iter().find(|needed| !component.can(needed));
    if let Some(missing) = missing {
        return Err(unsupported(
            component,
            &format!("has no capability {missing}"),
        ));
    }
    let mut random = [0; 8];
    entropy.fill(&mut random);
    let name = format!("probe-{:016x}", u64::from_be_bytes(random));
    let scratch = Scratch { calls, name: &name };
    let abilities = scratch.abilities(component).await;
    // It ends by itself, too.
    let _ = calls.remove(&name).await;
    abilities
}

fn unsupported(component: &Component, what: &str) -> PortError {
    PortError::new(ErrorKind::Unsupported, BACKEND, "open")
        .context(format!("the state store {component} {what}"))
}

struct Scratch<'a> {
    calls: &'a Calls,
    name: &'a str,
}

impl Scratch<'_> {
    async fn abilities(&self, component: &Component) -> Result<Abilities, PortError> {
        let unable = |what| unsupported(component, what);
        let creation = match self.save(b"1", When::Missing, Creation::Sentinel).await {
            Ok(()) => Creation::Sentinel,
            Err(failure) => {
                if self.holds().await?.is_some() {
                    return Err(failure.into_port("open"));
                }
                let first = self.save(b"1", When::Missing, Creation::FirstWrite).await;
                first.map_err(|failure| failure.into_port("open"))?;
                Creation::FirstWrite
            }
        };
        let first = self.holds().await?;
        let first = first.ok_or_else(|| unable("gives no ETags"))?;
        let again = self.save(b"2", When::Missing, creation).await;
        if again.is_ok() || self.holds().await?.as_ref() != Some(&first) {
            return Err(unable("creates a key that is there"));
        }
        let next = self.save(b"1", When::Match(&first), creation).await;
        next.map_err(|failure| failure.into_port("open"))?;
        let second = self.holds().await?;
        if second.is_none() || second.as_ref() == Some(&first) {
            return Err(unable("gives a written value the ETag that it had"));
        }
        let stale = self.save(b"2", When::Match(&first), creation).await;
        if stale.is_ok() || self.holds().await? != second {
            return Err(unable("takes a stale ETag"));
        }
        Ok(Abilities {
            creation,
            keeps: Keeps {
                missing_is_refused: creation == Creation::FirstWrite,
                empty: self.keeps_an_empty_value(creation).await?,
            },
        })
    }

    async fn keeps_an_empty_value(&self, creation: Creation) -> Result<bool, PortError> {
        let saved = self.save(b"", When::Always, creation).await.is_ok();
        let found = self.found().await?;
        Ok(saved && found.etag.is_some() && found.data.is_empty())
    }

    async fn save(
        &self,
        value: &'static [u8],
        when: When<'_>,
        creation: Creation,
    ) -> Result<(), Failure> {
        let value = Bytes::from_static(value);
        self.calls
            .save(self.name, &value, when, creation, SCRATCH)
            .await
    }

    /// The ETag, if there is a value.
    async fn holds(&self) -> Result<Option<Box<str>>, PortError> {
        Ok(self.found().await?.etag)
    }

    async fn found(&self) -> Result<super::calls::Found, PortError> {
        let found = self.calls.get(self.name).await;
        found.map_err(|failure| failure.into_port("open"))
    }
}
