//! Waits at the start for what the service cannot do without.
//!
//! Everything that is started together begins in any order: a server that is not there yet is waited
//! for, up to one limit for all of them; each is tried once, however short that is. What time cannot heal, such as a wrong password, is refused at
//! once.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use task_core::ports::{ErrorKind, PortError, Secret, SecretName, SecretStore};
use tokio::time::{Instant, sleep, timeout_at};

use super::Role;
use crate::app::StartError;

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// How long an attempt may go on before the reader is told what it waits for.
const QUIET: Duration = Duration::from_millis(500);

/// Least time of the first attempt, also where there is none to wait.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);

/// What is waited for, in the words of who configured it.
#[derive(Debug, Clone)]
pub(super) struct Needed {
    /// What it is.
    pub(super) name: &'static str,
    /// Where it should be, without a password.
    pub(super) address: String,
    /// The configuration key that says so.
    pub(super) key: &'static str,
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.name, self.address, self.key)
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) enum Missed {
    /// Another one may succeed.
    Now(Box<dyn Error + Send + Sync>),
    /// No later one will.
    ForGood(StartError),
}

impl Missed {
    /// What a failed call of a port says of the next one.
    pub(super) fn of(error: PortError, refused: impl FnOnce(PortError) -> StartError) -> Self {
        let passes = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled
        );
        match passes {
            true => Self::Now(Box::new(error)),
            false => Self::ForGood(refused(error)),
        }
    }
}

/// The time that is left for everything that is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    limit: Duration,
    until: Instant,
    /// Whether the service can begin without what does not come.
    can_do_without: bool,
}

impl Patience {
    /// From now on; none for a side that the service can begin without.
    pub(super) fn of(role: Role<'_>, limit: Duration) -> Self {
        let can_do_without = matches!(role, Role::Known(_));
        let limit = match can_do_without {
            true => Duration::ZERO,
            false => limit,
        };
        Self {
            limit,
            until: Instant::now() + limit,
            can_do_without,
        }
    }

    /// What came in time, or what works without it until it comes.
    pub(super) fn or_without<T>(
        self,
        came: Result<T, StartError>,
        without: impl FnOnce() -> Result<T, StartError>,
    ) -> Result<T, StartError> {
        match came {
            Err(StartError::Missing { needed, .. }) if self.can_do_without => {
                tracing::warn!("{needed} is away; it is used as soon as it is there");
                without()
            }
            came => came,
        }
    }

    /// Tries until it succeeds, until it cannot any more, or until the time is over; at least once.
    pub(super) async fn until<T>(
        self,
        needed: Needed,
        mut attempt: impl AsyncFnMut() -> Result<T, Missed>,
    ) -> Result<T, StartError> {
        let mut told = false;
        let mut last = None;
        let mut end = self.until.max(Instant::now() + FIRST_ATTEMPT);
        while let Ok(tried) = self.attempt(&needed, end, &mut told, attempt()).await {
            match tried {
                Ok(found) => return Ok(found),
                Err(Missed::ForGood(error)) => return Err(error),
                Err(Missed::Now(error)) => {
                    tracing::debug!(%error, "{needed} is not there yet");
                    last = Some(error);
                }
            }
            if Instant::now() + PAUSE >= self.until {
                break;
            }
            self.tell(&needed, &mut told);
            end = self.until;
            sleep(PAUSE).await;
        }
        Err(StartError::Missing {
            needed: needed.to_string(),
            limit: self.limit,
            source: last,
        })
    }

    /// Reads the secret that a configuration key names, once its store can be asked.
    #[cfg_attr(
        not(any(test, all(feature = "redis", feature = "http"))),
        expect(dead_code, reason = "only the direct backend has secrets")
    )]
    pub(super) async fn secret(
        self,
        store: &dyn SecretStore,
        key: &'static str,
        name: Option<&SecretName>,
    ) -> Result<Option<Secret>, StartError> {
        let Some(name) = name else { return Ok(None) };
        let needed = Needed {
            name: "secret",
            address: name.to_string(),
            key,
        };
        let read = self.until(needed, async || {
            let read = store.get(name).await;
            read.map_err(|error| Missed::of(error, |source| StartError::Secret { key, source }))
        });
        read.await.map(Some)
    }

    /// One attempt, of which the reader hears if it takes its time; an error at its end.
    async fn attempt<T>(
        self,
        needed: &Needed,
        end: Instant,
        told: &mut bool,
        attempt: impl Future<Output = T>,
    ) -> Result<T, tokio::time::error::Elapsed> {
        let mut attempt = std::pin::pin!(attempt);
        let quiet = end.min(Instant::now() + QUIET);
        if let Ok(tried) = timeout_at(quiet, attempt.as_mut()).await {
            return Ok(tried);
        }
        self.tell(needed, told);
        timeout_at(end, attempt).await
    }

    fn tell(self, needed: &Needed, told: &mut bool) {
        if !std::mem::replace(told, true) {
            let limit_ms = self.limit.as_millis();
            tracing::warn!(limit_ms, "waiting for {needed}");
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::telemetry::chain;

    /// A store of secrets that begins to answer after 3 s.
    #[derive(Debug)]
    struct Late(Instant);

    #[async_trait]
    impl SecretStore for Late {
        async fn get(&self, _: &SecretName) -> Result<Secret, PortError> {
            match self.0.elapsed().as_secs() {
                0..3 => Err(PortError::new(ErrorKind::Unavailable, "test", "get")),
                _ => Ok(Secret::new("canary-3b9e").expect("not empty")),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_waited_for_until_its_store_can_be_asked() {
        let name = SecretName::parse("redis/password").expect("a valid name");
        let read = async |limit: u64| {
            let patience = Patience::of(Role::Alone, Duration::from_secs(limit));
            let late = Late(Instant::now());
            let read = patience.secret(&late, "redis_password_secret", Some(&name));
            read.await
        };
        let found = read(30).await.expect("it came").expect("the key is set");
        assert!(found.matches("canary-3b9e"));
        let error = read(1).await.expect_err("it is late");
        assert_eq!(
            chain(&error),
            "no secret at redis/password (redis_password_secret) within 1000 ms: \
             test get: unavailable"
        );
    }

    fn needed() -> Needed {
        Needed {
            name: "redis",
            address: "127.0.0.1:6379".to_owned(),
            key: "redis_url",
        }
    }

    fn missed(kind: ErrorKind) -> Missed {
        let error = PortError::new(kind, "redis", "open").context("not there");
        Missed::of(error, StartError::Unfit)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_later_is_waited_for() {
        let began = Instant::now();
        let patience = Patience::of(Role::Alone, Duration::from_secs(30));
        let found = patience.until(needed(), async || match began.elapsed().as_secs() {
            0..3 => Err(missed(ErrorKind::Unavailable)),
            _ => Ok(7),
        });
        assert_eq!(found.await.expect("it came"), 7);
        assert!(began.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_named_with_its_address_its_key_and_the_last_reason() {
        let began = Instant::now();
        let patience = Patience::of(Role::Alone, Duration::from_secs(30));
        let never = patience.until(needed(), async || {
            Err::<(), _>(missed(ErrorKind::Unavailable))
        });
        let error = never.await.expect_err("it never comes");
        assert_eq!(
            chain(&error),
            "no redis at 127.0.0.1:6379 (redis_url) within 30000 ms: \
             redis open: unavailable: not there"
        );
        assert!(began.elapsed() <= Duration::from_secs(30));
        let silent = patience.until(needed(), std::future::pending::<Result<(), Missed>>);
        let error = silent.await.expect_err("it never answers");
        assert!(chain(&error).ends_with("within 30000 ms"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_to_wait_there_is_one_attempt_that_may_succeed() {
        let patience = Patience::of(Role::Alone, Duration::ZERO);
        let found = patience.until(needed(), async || {
            sleep(Duration::from_millis(50)).await;
            Ok(7)
        });
        assert_eq!(found.await.expect("it is there"), 7);
        let mut attempts = 0;
        let missed = patience.until(needed(), async || {
            attempts += 1;
            Err::<(), _>(missed(ErrorKind::Unavailable))
        });
        let error = missed.await.expect_err("it is not there");
        assert!(chain(&error).ends_with("not there"), "{error}");
        assert_eq!(attempts, 1);
        let began = Instant::now();
        let silent = patience.until(needed(), std::future::pending::<Result<(), Missed>>);
        silent.await.expect_err("it never answers");
        assert_eq!(began.elapsed(), FIRST_ATTEMPT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_time_cannot_heal_is_not_waited_for() {
        let began = Instant::now();
        for kind in [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Invalid] {
            let patience = Patience::of(Role::Alone, Duration::from_secs(30));
            let refused = patience.until(needed(), async || Err::<(), _>(missed(kind)));
            let error = refused.await.expect_err("it is refused");
            assert!(matches!(error, StartError::Unfit(_)), "{error}");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
