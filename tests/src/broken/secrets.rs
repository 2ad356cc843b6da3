//! The wrapper, the table and the faults of broken secret stores.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use task_core::memory::MemorySecretStore;
use task_core::ports::{ErrorKind, PortError, Secret, SecretName, SecretStore};

use crate::conformance::Failure;
use crate::conformance::secret_store::SecretStoreBackend;

type Fresh = fn() -> Arc<dyn SecretStoreBackend>;

/// Name, the cases that reject it, and how to make one.
pub(super) const BROKEN: &[(&str, &[&str], Fresh)] = &[
    (
        "answers_another_secrets_value",
        &[
            "each_name_has_its_own_value",
            "racing_readers_get_their_own_values",
        ],
        || faulty(AnswersAnothersValue),
    ),
    (
        "answers_the_last_readers_value",
        &["racing_readers_get_their_own_values"],
        || faulty(AnswersTheLastReader::default()),
    ),
    ("trims_secrets", &["a_secret_is_answered_unchanged"], || {
        faulty(TrimsSecrets)
    }),
    (
        "answers_a_value_for_a_missing_secret",
        &[
            "a_missing_secret_is_not_found_by_its_name",
            "an_empty_secret_is_missing",
        ],
        || faulty(AnswersADefault),
    ),
    (
        "calls_a_missing_secret_unavailable",
        &["a_missing_secret_is_not_found_by_its_name"],
        || faulty(SaysUnavailable),
    ),
    (
        "does_not_name_the_secret",
        &["a_missing_secret_is_not_found_by_its_name"],
        || faulty(NamesNothing),
    ),
    (
        "answers_an_empty_secret",
        &["an_empty_secret_is_missing"],
        || faulty(AnswersAnEmptySecret),
    ),
    (
        "shows_a_value_in_an_error",
        &["no_error_shows_a_value"],
        || faulty(ShowsAValue),
    ),
    (
        "shows_a_value_in_a_source",
        &["no_error_shows_a_value"],
        || faulty(ShowsAValueInASource),
    ),
];

/// What a faulty store is made of: one that works, and all that it was given.
#[derive(Debug)]
struct Held {
    inner: MemorySecretStore,
    texts: Vec<(SecretName, String)>,
}

impl Held {
    /// What was stored under a name, empty or not.
    fn text(&self, name: &SecretName) -> Option<&str> {
        let mut texts = self.texts.iter();
        let found = texts.find(|(stored, _)| stored == name);
        found.map(|(_, text)| text.as_str())
    }

    /// Every value, for whoever should not see it.
    fn everything(&self) -> String {
        format!("{:?}", self.texts)
    }
}

/// One thing that a secret store does wrong.
#[async_trait]
trait SecretFault: Debug + Send + Sync + 'static {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError>;
}

#[derive(Debug)]
struct FaultySecretStore<F> {
    held: Held,
    fault: Arc<F>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<F: SecretFault> SecretStore for FaultySecretStore<F> {
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError> {
        self.fault.get(&self.held, name).await
    }
}

#[derive(Debug)]
struct FaultySecretStores<F>(Arc<F>);

fn faulty<F: SecretFault>(fault: F) -> Arc<dyn SecretStoreBackend> {
    Arc::new(FaultySecretStores(Arc::new(fault)))
}

#[async_trait]
impl<F: SecretFault> SecretStoreBackend for FaultySecretStores<F> {
    async fn open(&self, texts: &[(SecretName, &str)]) -> Result<Arc<dyn SecretStore>, Failure> {
        let owned = texts
            .iter()
            .map(|(name, text)| (name.clone(), (*text).to_owned()));
        let secrets = texts
            .iter()
            .filter_map(|(name, text)| Some((name.clone(), Secret::new(*text)?)));
        let held = Held {
            inner: MemorySecretStore::new(secrets),
            texts: owned.collect(),
        };
        Ok(Arc::new(FaultySecretStore {
            held,
            fault: Arc::clone(&self.0),
        }))
    }

    async fn close(&self) {}
}

/// Does not look at the key of a secret that it has.
#[derive(Debug)]
struct AnswersAnothersValue;

#[async_trait]
impl SecretFault for AnswersAnothersValue {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let found = held.inner.get(name).await?;
        let mut texts = held.texts.iter();
        let same = texts.find(|(stored, text)| stored.name() == name.name() && !text.is_empty());
        Ok(same
            .and_then(|(_, text)| Secret::new(text))
            .unwrap_or(found))
    }
}

/// Keeps what it is asked for where the next caller overwrites it.
#[derive(Debug, Default)]
struct AnswersTheLastReader {
    asked: Mutex<Option<SecretName>>,
}

#[async_trait]
impl SecretFault for AnswersTheLastReader {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let asked = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked() = Some(name.clone());
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        let last = asked().clone();
        held.inner.get(last.as_ref().unwrap_or(name)).await
    }
}

/// Cuts spaces and line ends off both sides.
#[derive(Debug)]
struct TrimsSecrets;

#[async_trait]
impl SecretFault for TrimsSecrets {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let found = held.inner.get(name).await?;
        Ok(Secret::new(found.expose().trim()).unwrap_or(found))
    }
}

/// Answers the same text for everything that it does not have.
#[derive(Debug)]
struct AnswersADefault;

#[async_trait]
impl SecretFault for AnswersADefault {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let found = held.inner.get(name).await;
        found.or_else(|error| Secret::new("changeme").ok_or(error))
    }
}

/// Takes a secret that is missing for a store that is away.
#[derive(Debug)]
struct SaysUnavailable;

#[async_trait]
impl SecretFault for SaysUnavailable {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        match held.text(name) {
            Some(_) => held.inner.get(name).await,
            None => Err(PortError::new(ErrorKind::Unavailable, "broken", "get")
                .context(format!("secret {name}"))),
        }
    }
}

/// Leaves out which secret is missing.
#[derive(Debug)]
struct NamesNothing;

#[async_trait]
impl SecretFault for NamesNothing {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let found = held.inner.get(name).await;
        found.map_err(|error| PortError::new(error.kind(), "broken", "get"))
    }
}

/// Answers a line end for an empty secret, the nearest to empty that the type allows.
#[derive(Debug)]
struct AnswersAnEmptySecret;

#[async_trait]
impl SecretFault for AnswersAnEmptySecret {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let found = held.inner.get(name).await;
        match held.text(name) {
            Some("") => found.or_else(|error| Secret::new("\n").ok_or(error)),
            Some(_) | None => found,
        }
    }
}

/// Says what there is when something is missing.
#[derive(Debug)]
struct ShowsAValue;

#[async_trait]
impl SecretFault for ShowsAValue {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let found = held.inner.get(name).await;
        let context = format!("{name} is not among {}", held.everything());
        found.map_err(|error| error.context(context))
    }
}

/// Keeps a cause that quotes what it read.
#[derive(Debug)]
struct ShowsAValueInASource;

#[async_trait]
impl SecretFault for ShowsAValueInASource {
    async fn get(&self, held: &Held, name: &SecretName) -> Result<Secret, PortError> {
        let found = held.inner.get(name).await;
        found.map_err(|error| error.caused_by(std::io::Error::other(held.everything())))
    }
}
