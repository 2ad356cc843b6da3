//! Where Redis is, how it is talked to, and how keys are laid out in it.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use task_core::ports::{PortError, Secret, SecretName, SecretStore};
use url::Url;

use super::tls;
use crate::config::{ClientCertificate, ConfigProblem, ConfigProblems, Found};

/// The port of Redis where the address names none.
const DEFAULT_PORT: u16 = 6379;

/// Longest time limit that is sensible, and the shortest.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// Commands at once, from the strictest limit to the laxest.
const IN_FLIGHT: RangeInclusive<usize> = 1..=65_536;

/// Steps to a connection, each with a time limit.
const CONNECT_STEPS: u32 = 6;

/// Longest prefix of keys, in bytes.
const MAX_PREFIX_BYTES: usize = 128;

/// How values lie in Redis.
///
/// | | `Legacy` | `Dapr` |
/// | --- | --- | --- |
/// | a task | string `task:{id}` | hash `{prefix}\|\|task-{id}` with `data` and `version` |
/// | another kind | string `{prefix}:state:{kind}:{id}` | hash `{prefix}\|\|{kind}-{id}` |
/// | a tombstone | string `{prefix}:tombstone:{kind}:{id}` | the hash with empty `data` |
/// | all names of a [listed](task_core::ports::Kind::listed) kind | sorted set `{prefix}:list:legacy:{kind}` | sorted set `{prefix}:list:dapr:{kind}` |
/// | a version | digest of the value: it comes back with the value | number that never comes back |
/// | pending events | stream `{prefix}:outbox` | the same |
/// | their relay's lease | string `{prefix}:state:lease:{id}` | the same |
///
/// Services with prefixes of their own thus share nothing in one database but tasks of the legacy layout, and the streams
/// of the event bus, which are named by their topics. Replicas with one prefix share one outbox and one lease, also
/// in different layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisLayout {
    /// What the replaced service reads and writes with plain `GET` and `SET`.
    Legacy,
    /// What Dapr's `state.redis` reads and writes, so that both can work on one copy.
    Dapr,
}

/// What the names of a service begin with: before `||` in Dapr's layout, whose metadata calls it `keyPrefix`, and before
/// `:` elsewhere, where no prefix is `none`.
///
/// | `keyPrefix` | here |
/// | --- | --- |
/// | `appid` (default) | `Text("task-api")`, the app id |
/// | `namespace` | `Text("{namespace}.{app id}")` |
/// | `name` | `Text("statestore")`, the component's name |
/// | `none` | `None` |
/// | any other text | `Text` of it |
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPrefix {
    /// This text, and `||`.
    Text(Box<str>),
    /// Nothing.
    None,
}

impl KeyPrefix {
    /// Reads the metadata `keyPrefix` where it is neither `appid`, `namespace` nor `name`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "none" => Self::None,
            text => Self::Text(text.into()),
        }
    }

    /// What everything begins with that has no name in Dapr's layout.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Text(prefix) => prefix,
            Self::None => "none",
        }
    }
}

impl Default for KeyPrefix {
    /// The app id of the Task API.
    fn default() -> Self {
        Self::Text("task-api".into())
    }
}

/// The password of a user.
#[derive(Debug, Clone)]
pub enum Password {
    /// This one, as long as the backend lives.
    Fixed(Secret),
    /// The one that a store has whenever a connection is made, so that it may be changed. While the store cannot be
    /// asked, it is the one that has worked last.
    Kept {
        /// The store.
        store: Arc<dyn SecretStore>,
        /// Its name there.
        name: SecretName,
    },
}

impl Password {
    pub(super) async fn read(&self) -> Result<Secret, PortError> {
        match self {
            Self::Fixed(secret) => Ok(secret.clone()),
            Self::Kept { store, name } => store.get(name).await,
        }
    }
}

/// Configuration of the Redis backend.
///
/// ```
/// use adapters_direct::redis::{Password, RedisConfig, RedisLayout};
/// use task_core::ports::Secret;
/// let mut config = RedisConfig::new("rediss://service@redis.example:6380/2", RedisLayout::Dapr);
/// config.password = Secret::new("hunter2").map(Password::Fixed);
/// config.check().unwrap();
/// assert!(!format!("{config:?}").contains("hunter2"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    address: Result<Address, AddressError>,
    /// How values lie in Redis.
    pub layout: RedisLayout,
    /// What keys begin with.
    pub key_prefix: KeyPrefix,
    /// The password of the user that the address names, or of `default`.
    pub password: Option<Password>,
    /// PEM file of whom to trust instead of the machine's roots.
    pub ca_file: Option<PathBuf>,
    /// What to show a server that asks for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Longest time of each step to a connection: the password, the socket, TLS, the login, and two exchanges.
    pub connect_timeout: Duration,
    /// Longest time until a command is answered.
    pub response_timeout: Duration,
    /// Most commands that wait for an answer at once; more are refused.
    pub max_in_flight: usize,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) user: Option<Box<str>>,
    pub(super) database: u32,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = self.host.as_ref();
        match bare.contains(':') {
            true => write!(f, "[{bare}]:{}", self.port),
            false => write!(f, "{bare}:{}", self.port),
        }
    }
}

/// Why an address cannot be used.
///
/// It never shows the address as it was given, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error("must be a URL: {0}")]
    NotAUrl(#[from] url::ParseError),
    #[error("must begin with redis:// or rediss://")]
    Scheme,
    #[error("must have a host")]
    Host,
    #[error("must not hold a password, which belongs to a secret store")]
    Password,
    #[error("must not hold a query or a fragment")]
    QueryOrFragment,
    #[error("must end in the number of a database from 0 to 65535, it ends in {0:?}")]
    Database(String),
}

impl RedisConfig {
    /// One server, `redis[s]://[user@]host[:port][/database]`, with 1 s to connect and 2 s to answer.
    #[must_use]
    pub fn new(address: &str, layout: RedisLayout) -> Self {
        Self {
            address: Address::parse(address),
            layout,
            key_prefix: KeyPrefix::default(),
            password: None,
            ca_file: None,
            client_certificate: None,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
            max_in_flight: 4096,
        }
    }

    /// Says whether everything can be used.
    ///
    /// # Errors
    /// All [`problems`](Self::problems).
    pub fn check(&self) -> Result<(), ConfigProblems> {
        ConfigProblems::refuse(self.problems())
    }

    /// Everything that cannot be used: field, limit and value. It reads the files that are named.
    ///
    /// A user without a password is a problem of `password`.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Found::default();
        match &self.address {
            Ok(address) => self.fit(address, &mut found),
            Err(error) => found.add("address", error.to_string()),
        }
        if self.address.as_ref().is_ok_and(|address| address.tls) {
            for (field, unusable) in tls::unusable_files(self) {
                found.add(field, unusable);
            }
        }
        self.prefix(&mut found);
        found.time("connect_timeout", self.connect_timeout, &TIMES);
        found.time("response_timeout", self.response_timeout, &TIMES);
        found.count("max_in_flight", self.max_in_flight, &IN_FLIGHT);
        found.0
    }

    /// What does not fit the address.
    fn fit(&self, address: &Address, found: &mut Found) {
        if let (Some(user), None) = (&address.user, &self.password) {
            let problem = format!("must be set, the address names the user {user:?}");
            found.add("password", problem);
        }
        for (field, is_set) in [
            ("ca_file", self.ca_file.is_some()),
            ("client_certificate", self.client_certificate.is_some()),
        ] {
            if is_set && !address.tls {
                found.add(field, "must not be set, the address begins with redis://");
            }
        }
    }

    fn prefix(&self, found: &mut Found) {
        let KeyPrefix::Text(prefix) = &self.key_prefix else {
            return;
        };
        if !(1..=MAX_PREFIX_BYTES).contains(&prefix.len()) || prefix.contains('|') {
            let rule = "must be 1 to 128 bytes without a bar";
            found.add("key_prefix", format!("{rule}, it is {prefix:?}"));
        }
        if prefix.split(':').next() == Some("task") {
            let rule = "must not begin like the keys of the tasks themselves, with \"task\" alone";
            found.add("key_prefix", format!("{rule}, it is {prefix:?}"));
        }
    }

    /// Longest time of a call, connection included.
    #[must_use]
    pub fn longest_call(&self) -> Duration {
        CONNECT_STEPS * self.connect_timeout + self.response_timeout
    }

    /// Where the server is, without user and database, if that can be read.
    #[must_use]
    pub fn host_and_port(&self) -> Option<String> {
        self.address.as_ref().ok().map(Address::to_string)
    }

    /// Where the server is, if everything can be used.
    pub(super) fn checked(&self) -> Result<&Address, ConfigProblems> {
        let problems = self.problems();
        match &self.address {
            Ok(address) if problems.is_empty() => Ok(address),
            Ok(_) | Err(_) => Err(ConfigProblems(problems)),
        }
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err(AddressError::Scheme);
        }
        if url.password().is_some() {
            return Err(AddressError::Password);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::QueryOrFragment);
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(AddressError::Host)?;
        let user = Some(url.username()).filter(|user| !user.is_empty());
        Ok(Self {
            tls: url.scheme() == "rediss",
            host: host.trim_matches(['[', ']']).into(),
            port: url.port().unwrap_or(DEFAULT_PORT),
            user: user.map(Into::into),
            database: database(url.path())?,
        })
    }
}

fn database(path: &str) -> Result<u32, AddressError> {
    let digits = path.trim_matches('/');
    if digits.is_empty() {
        return Ok(0);
    }
    let number: Option<u16> = digits.parse().ok();
    number
        .map(u32::from)
        .ok_or_else(|| AddressError::Database(digits.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(address: &str) -> RedisConfig {
        RedisConfig::new(address, RedisLayout::Legacy)
    }

    fn parsed(text: &str) -> Result<Address, AddressError> {
        config(text).address
    }

    #[test]
    fn an_address_names_server_user_and_database() {
        for (text, tls, host, port, user, database) in [
            ("redis://a", false, "a", 6379, None, 0),
            ("redis://a:1/", false, "a", 1, None, 0),
            (
                "rediss://u@a.example/7",
                true,
                "a.example",
                6379,
                Some("u"),
                7,
            ),
            ("redis://[::1]:2/15", false, "::1", 2, None, 15),
        ] {
            let expected = Address {
                tls,
                host: host.into(),
                port,
                user: user.map(Into::into),
                database,
            };
            assert_eq!(parsed(text), Ok(expected), "{text}");
        }
        let address = parsed("redis://[::1]:2").expect("an address");
        assert_eq!(address.to_string(), "[::1]:2");
    }

    #[test]
    fn an_address_is_refused_for_a_reason_and_its_password_never_shown() {
        use AddressError::{Host, Password, QueryOrFragment, Scheme};
        for (text, expected) in [
            ("http://hunter2", Scheme),
            ("redis:///1", Host),
            ("redis://:hunter2@a", Password),
            ("redis://u:hunter2@a/1", Password),
            ("redis://a/?x=hunter2", QueryOrFragment),
            ("redis://a/#hunter2", QueryOrFragment),
        ] {
            assert_eq!(parsed(text).err(), Some(expected), "{text}");
        }
        for text in [
            "redis://a/tasks",
            "redis://a/-1",
            "redis://a/65536",
            "redis://a/1/2",
        ] {
            let error = parsed(text).expect_err(text);
            assert!(
                matches!(error, AddressError::Database(_)),
                "{text}: {error}"
            );
        }
        let unusable = config("redis://:hunter2@a:port");
        let shown = format!("{unusable:?} {:?}", unusable.problems());
        assert!(
            shown.contains("invalid port") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn a_field_out_of_range_is_named_with_its_limit_and_value() {
        let check = |change: fn(&mut RedisConfig)| {
            let mut config = config("redis://u@a");
            config.password = Secret::new("x").map(Password::Fixed);
            config.check().expect("the defaults are valid");
            change(&mut config);
            config.check().expect_err("out of range").to_string()
        };
        for (found, expected) in [
            (
                check(|config| config.response_timeout = Duration::ZERO),
                "response_timeout must be 1 to 60000 ms, it is 0 ms",
            ),
            (
                check(|config| config.connect_timeout = Duration::from_secs(61)),
                "connect_timeout must be 1 to 60000 ms, it is 61000 ms",
            ),
            (
                check(|config| config.max_in_flight = 0),
                "max_in_flight must be 1 to 65536, it is 0",
            ),
            (
                check(|config| config.key_prefix = KeyPrefix::Text("task:a".into())),
                "key_prefix must not begin like the keys of the tasks themselves, with \"task\" alone, it is \"task:a\"",
            ),
            (
                check(|config| config.key_prefix = KeyPrefix::Text("a||b".into())),
                "key_prefix must be 1 to 128 bytes without a bar, it is \"a||b\"",
            ),
            (
                check(|config| config.password = None),
                "password must be set, the address names the user \"u\"",
            ),
            (
                check(|config| config.ca_file = Some(existing())),
                "ca_file must not be set, the address begins with redis://",
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    /// A file that can be read; that it holds no certificate shows with TLS only.
    fn existing() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")
    }

    #[test]
    fn all_problems_are_told_at_once_and_each_names_its_field() {
        let mut config = config("rediss://u@a");
        config.ca_file = Some("no-such.pem".into());
        config.client_certificate = Some(ClientCertificate {
            certificate: existing(),
            key: "no-such.key".into(),
        });
        config.key_prefix = KeyPrefix::Text("|".into());
        config.connect_timeout = Duration::ZERO;
        config.max_in_flight = 0;
        let fields = [
            "password",
            "ca_file",
            "client_certificate.certificate",
            "client_certificate.key",
            "key_prefix",
            "connect_timeout",
            "max_in_flight",
        ];
        let problems = config.problems();
        let found: Vec<&str> = problems.iter().map(|problem| problem.field).collect();
        assert_eq!(found, fields);
        assert!(problems[1].problem.contains("no-such.pem"), "{problems:?}");
        assert!(
            problems[2].problem.contains("holds no certificate"),
            "{problems:?}"
        );
        config.address = parsed("http://a");
        let refused = config.check().expect_err("problems").to_string();
        assert!(
            refused.starts_with("address must begin with redis://"),
            "{refused}"
        );
        assert!(refused.contains("; max_in_flight must be"), "{refused}");
    }
}
