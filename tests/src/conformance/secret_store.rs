//! The cases of the [`SecretStore`] port, promises SEC1 to SEC5.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use task_core::ports::{ErrorKind, SecretName, SecretStore};

use super::{Failure, Verdict, cases, ensure, refused};

/// How an adapter is put under test; one instance serves one case.
#[async_trait]
pub trait SecretStoreBackend: Debug + Send + Sync + 'static {
    /// Opens a store that holds exactly these texts, of which some may be empty. The suite calls it
    /// once.
    async fn open(&self, texts: &[(SecretName, &str)]) -> Result<Arc<dyn SecretStore>, Failure>;

    /// Removes everything that [`open`](Self::open) made.
    async fn close(&self);
}

/// What a case is given: a backend that holds nothing yet.
#[derive(Debug)]
pub struct Subject {
    /// The backend under test.
    pub backend: Arc<dyn SecretStoreBackend>,
}

/// The port has no capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCapability {}

/// A requirement of the secret store port.
pub type Case = super::Case<Subject, NoCapability>;

/// Every case, in the order of the promises, the race last.
pub const CASES: &[Case] = cases![
    "SEC1" own::a_secret_is_answered_unchanged [],
    "SEC2" own::each_name_has_its_own_value [],
    "SEC3" own::a_missing_secret_is_not_found_by_its_name [],
    "SEC4" own::an_empty_secret_is_missing [],
    "SEC5" own::no_error_shows_a_value [],
    "SEC2" own::racing_readers_get_their_own_values [],
];

use self as own;

/// The case of this name.
#[must_use]
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// Runs a case on a fresh backend.
///
/// # Errors
/// The first promise that was not kept. A panic of the adapter is one as well.
pub async fn run(case: &'static Case, backend: Arc<dyn SecretStoreBackend>) -> Verdict {
    let owner = Arc::clone(&backend);
    let verdict = tokio::spawn((case.body)(Subject { backend })).await;
    owner.close().await;
    verdict?
}

fn name(text: &str) -> SecretName {
    SecretName::parse(text).expect("the suite uses valid names")
}

/// Opens a store of these secrets.
async fn open(subject: &Subject, texts: &[(&str, &str)]) -> Result<Arc<dyn SecretStore>, Failure> {
    let texts: Vec<_> = texts.iter().map(|(n, text)| (name(n), *text)).collect();
    subject.backend.open(&texts).await
}

/// Fails unless a name is answered with this text, which the failure does not hide.
async fn holds(store: &dyn SecretStore, of: &str, expected: &str) -> Verdict {
    let found = store.get(&name(of)).await?;
    let found = found.expose();
    ensure!(
        found == expected,
        "{of}: expected {expected:?}, found {found:?}"
    );
    Ok(())
}

/// Texts with everything that a format in between could change come back byte for byte.
pub async fn a_secret_is_answered_unchanged(subject: Subject) -> Verdict {
    let long = "0123456789abcdef".repeat(1024);
    let texts = [
        ("plain", "hunter2"),
        ("spaces", "  in front, between and behind\t "),
        (
            "lines",
            "-----BEGIN KEY-----\nQUJD\r\n-----END KEY-----\n\n",
        ),
        ("quotes", "\"'`\\\"\\n\\u0041${HOME} $(id) %s {}<&>#=;"),
        ("unicode", "pässwörd \u{1f511} e\u{301} \u{feff}"),
        ("json", "{\"key\": \"value\"}"),
        ("number", "007"),
        ("long", &long),
    ];
    let store = open(&subject, &texts).await?;
    for (of, text) in texts {
        holds(&*store, of, text).await?;
    }
    Ok(())
}

/// Names that look alike are told apart, and those of one secret as well.
pub async fn each_name_has_its_own_value(subject: Subject) -> Verdict {
    let texts = [
        ("db/password", "of db/password"),
        ("db/password2", "of db/password2"),
        ("db/pass", "of db/pass"),
        ("db/user", "of db/user"),
        ("db2/password", "of db2/password"),
        ("db-password", "of db-password"),
        ("password", "of password"),
        ("user", "of user"),
    ];
    let store = open(&subject, &texts).await?;
    for (of, text) in texts {
        holds(&*store, of, text).await?;
    }
    Ok(())
}

/// Names beside, above and below those that are stored are `NotFound`, and the text says which one.
pub async fn a_missing_secret_is_not_found_by_its_name(subject: Subject) -> Verdict {
    let texts = [("api-key", "x"), ("db/password", "y")];
    let store = open(&subject, &texts).await?;
    for missing in [
        "nothing",
        "api",
        "api-key2",
        "api-key/x",
        "db",
        "db/user",
        "db/pass",
        "other/password",
    ] {
        let answer = store.get(&name(missing)).await;
        let error = refused(answer, ErrorKind::NotFound, missing)?;
        ensure!(
            error.to_string().contains(missing),
            "the refusal of {missing} does not name it: {error}"
        );
    }
    Ok(())
}

/// An empty text is `NotFound`, and does no harm to its neighbour.
pub async fn an_empty_secret_is_missing(subject: Subject) -> Verdict {
    let texts = [("blank", ""), ("db/blank", ""), ("db/password", "y")];
    let store = open(&subject, &texts).await?;
    for empty in ["blank", "db/blank"] {
        refused(store.get(&name(empty)).await, ErrorKind::NotFound, empty)?;
    }
    holds(&*store, "db/password", "y").await
}

/// The text, the debug output and the sources of each refusal hold none of the values.
pub async fn no_error_shows_a_value(subject: Subject) -> Verdict {
    let texts = [
        ("api-key", "canary-5d1f"),
        ("db/password", "canary-77aa"),
        ("db/blank", ""),
    ];
    let store = open(&subject, &texts).await?;
    for missing in ["api", "api-key/x", "db", "db/user", "db/blank"] {
        // That there is an error at all is for SEC3 and SEC4.
        let Err(error) = store.get(&name(missing)).await else {
            continue;
        };
        let mut shown = format!("{error:?}");
        let mut next: Option<&dyn Error> = Some(&error);
        while let Some(error) = next {
            shown.push_str(&format!("\n{error}\n{error:?}"));
            next = error.source();
        }
        ensure!(
            !shown.contains("canary"),
            "the refusal of {missing} shows a value: {shown}"
        );
    }
    Ok(())
}

/// Many readers at once each get what they asked for.
pub async fn racing_readers_get_their_own_values(subject: Subject) -> Verdict {
    const SECRETS: usize = 8;
    const READERS: usize = 32;
    let names: Vec<_> = (0..SECRETS).map(|n| name(&format!("db/key{n}"))).collect();
    let values: Vec<_> = (0..SECRETS).map(|n| format!("value {n}")).collect();
    let texts = names.iter().cloned().zip(values.iter().map(String::as_str));
    let store = subject.backend.open(&texts.collect::<Vec<_>>()).await?;
    let readers = (0..READERS).map(|reader| {
        let store = Arc::clone(&store);
        let (name, value) = (
            names[reader % SECRETS].clone(),
            values[reader % SECRETS].clone(),
        );
        tokio::spawn(async move { holds(&*store, &name.to_string(), &value).await })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await??;
    }
    Ok(())
}
