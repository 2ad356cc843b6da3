//! Where Redis is, how it is talked to, and how keys are laid out in it.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use task_core::ports::Secret;
use url::Url;

/// The port of Redis where the address names none.
const DEFAULT_PORT: u16 = 6379;

/// Longest time limit that is sensible, and the shortest.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// Commands at once, from the strictest limit to the laxest.
const IN_FLIGHT: RangeInclusive<usize> = 1..=65_536;

/// Longest prefix of keys, in bytes.
const MAX_PREFIX_BYTES: usize = 128;

/// How values lie in Redis.
///
/// | | `Legacy` | `Dapr` |
/// | --- | --- | --- |
/// | a task | string `task:{id}` | hash `{prefix}\|\|task-{id}` with `data` and `version` |
/// | another kind | string `{namespace}:state:{kind}:{id}` | hash `{prefix}\|\|{kind}-{id}` |
/// | a tombstone | string `{namespace}:tombstone:{kind}:{id}` | the hash with empty `data` |
/// | a version | digest of the value: it comes back with the value | number that never comes back |
/// | pending events | stream `{namespace}:outbox` | stream `{namespace}:outbox` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisLayout {
    /// What the replaced service reads and writes with plain `GET` and `SET`.
    Legacy,
    /// What Dapr's `state.redis` reads and writes, so that both can work on one copy.
    Dapr,
}

/// What stands before `||` in a key of Dapr's layout: its metadata `keyPrefix`.
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
}

impl Default for KeyPrefix {
    /// The app id of the Task API.
    fn default() -> Self {
        Self::Text("task-api".into())
    }
}

/// What a server that asks for certificates is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate and what signed it.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// Configuration of the Redis backend.
///
/// ```
/// use adapters_direct::redis::{RedisConfig, RedisLayout};
/// use task_core::ports::Secret;
/// let mut config = RedisConfig::new("rediss://service@redis.example:6380/2", RedisLayout::Dapr).unwrap();
/// config.password = Secret::new("hunter2");
/// config.check().unwrap();
/// assert!(!format!("{config:?}").contains("hunter2"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    address: Address,
    /// How values lie in Redis.
    pub layout: RedisLayout,
    /// What keys of Dapr's layout begin with.
    pub key_prefix: KeyPrefix,
    /// What every other key of ours begins with; letters, digits, `-`, `_` and `.`.
    pub namespace: Box<str>,
    /// The password of the user that the address names, or of `default`.
    pub password: Option<Secret>,
    /// PEM file of whom to trust instead of the machine's roots.
    pub ca_file: Option<PathBuf>,
    /// What to show a server that asks for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Longest time until a connection stands, TLS and greeting included.
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

/// What is wrong with a [`RedisConfig`].
///
/// It never shows the address as it was given, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The address is not a URL.
    #[error("the Redis address is not a URL: {0}")]
    NotAUrl(#[from] url::ParseError),
    /// The address begins with something else.
    #[error("the Redis address must begin with redis:// or rediss://")]
    Scheme,
    /// The address has no host.
    #[error("the Redis address has no host")]
    Host,
    /// The address holds a password.
    #[error("the Redis address must not hold a password, which belongs to a secret store")]
    PasswordInAddress,
    /// The address goes on after the database.
    #[error("the Redis address must not hold a query or a fragment")]
    QueryOrFragment,
    /// The address names something else than a database.
    #[error("the Redis address has {0:?} where a database's number from 0 to 65535 is expected")]
    Database(String),
    /// A user without a password.
    #[error("the Redis address names the user {0:?}, who has no password")]
    UserWithoutPassword(Box<str>),
    /// A file for TLS without TLS.
    #[error("{0} is set, which needs an address that begins with rediss://")]
    NeedsTls(&'static str),
    /// A time limit out of its range.
    #[error("{field} must be 1 to 60000 ms, it is {} ms", value.as_millis())]
    Time {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: Duration,
    },
    /// The limit of commands out of its range.
    #[error("max_in_flight must be 1 to 65536, it is {0}")]
    InFlight(usize),
    /// A prefix of keys that cannot be one.
    #[error("{field} must {rule}, it is {value:?}")]
    Prefix {
        /// Which one.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
        /// What it is.
        value: Box<str>,
    },
}

impl RedisConfig {
    /// One server, `redis[s]://[user@]host[:port][/database]`, with 1 s to connect and 2 s to answer.
    ///
    /// # Errors
    /// Anything but such an address.
    pub fn new(address: &str, layout: RedisLayout) -> Result<Self, ConfigError> {
        Ok(Self {
            address: Address::parse(address)?,
            layout,
            key_prefix: KeyPrefix::default(),
            namespace: "task-api".into(),
            password: None,
            ca_file: None,
            client_certificate: None,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
            max_in_flight: 4096,
        })
    }

    /// Refuses what does not fit together or is out of range.
    ///
    /// # Errors
    /// The first problem: the field, its limit and its value.
    pub fn check(&self) -> Result<(), ConfigError> {
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
        ];
        if let Some((field, value)) = times.into_iter().find(|(_, time)| !TIMES.contains(time)) {
            return Err(ConfigError::Time { field, value });
        }
        if !IN_FLIGHT.contains(&self.max_in_flight) {
            return Err(ConfigError::InFlight(self.max_in_flight));
        }
        self.check_prefixes()?;
        let user = self.address.user.as_ref();
        if let (Some(user), None) = (user, &self.password) {
            return Err(ConfigError::UserWithoutPassword(user.clone()));
        }
        let files = [
            ("ca_file", self.ca_file.is_some()),
            ("client_certificate", self.client_certificate.is_some()),
        ];
        match files.into_iter().find(|(_, set)| *set) {
            Some((field, _)) if !self.address.tls => Err(ConfigError::NeedsTls(field)),
            Some(_) | None => Ok(()),
        }
    }

    fn check_prefixes(&self) -> Result<(), ConfigError> {
        let refuse = |field, rule, value: &str| ConfigError::Prefix {
            field,
            rule,
            value: value.into(),
        };
        let fits = |text: &str| (1..=MAX_PREFIX_BYTES).contains(&text.len());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !fits(&self.namespace) || !self.namespace.chars().all(plain) {
            let rule = "be 1 to 128 letters, digits, dashes, underscores and dots";
            return Err(refuse("namespace", rule, &self.namespace));
        }
        if &*self.namespace == "task" {
            let rule = "not be task, which begins the keys of the tasks themselves";
            return Err(refuse("namespace", rule, &self.namespace));
        }
        let KeyPrefix::Text(prefix) = &self.key_prefix else {
            return Ok(());
        };
        if !fits(prefix) || prefix.contains('|') {
            let rule = "be 1 to 128 bytes without a bar";
            return Err(refuse("key_prefix", rule, prefix));
        }
        Ok(())
    }

    /// Where the server is, without user and database.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err(ConfigError::Scheme);
        }
        if url.password().is_some() {
            return Err(ConfigError::PasswordInAddress);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ConfigError::QueryOrFragment);
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(ConfigError::Host)?;
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

fn database(path: &str) -> Result<u32, ConfigError> {
    let digits = path.trim_matches('/');
    if digits.is_empty() {
        return Ok(0);
    }
    let number: Option<u16> = digits.parse().ok();
    number
        .map(u32::from)
        .ok_or_else(|| ConfigError::Database(digits.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<RedisConfig, ConfigError> {
        RedisConfig::new(text, RedisLayout::Legacy)
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
            let config = parsed(text).expect(text);
            let expected = Address {
                tls,
                host: host.into(),
                port,
                user: user.map(Into::into),
                database,
            };
            assert_eq!(*config.address(), expected, "{text}");
        }
        let config = parsed("redis://[::1]:2").expect("an address");
        assert_eq!(config.address().to_string(), "[::1]:2");
    }

    #[test]
    fn an_address_is_refused_for_a_reason_and_its_password_never_shown() {
        use ConfigError::{Host, PasswordInAddress, QueryOrFragment, Scheme};
        for (text, expected) in [
            ("http://hunter2", Scheme),
            ("redis:///1", Host),
            ("redis://:hunter2@a", PasswordInAddress),
            ("redis://u:hunter2@a/1", PasswordInAddress),
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
            assert!(matches!(error, ConfigError::Database(_)), "{text}: {error}");
        }
        let error = parsed("redis://:hunter2@a:port").expect_err("no port");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_field_out_of_range_is_named_with_its_limit_and_value() {
        let check = |change: fn(&mut RedisConfig)| {
            let mut config = parsed("redis://u@a").expect("an address");
            config.password = Secret::new("x");
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
                check(|config| config.namespace = "a b".into()),
                "namespace must be 1 to 128 letters, digits, dashes, underscores and dots, it is \"a b\"",
            ),
            (
                check(|config| config.namespace = "task".into()),
                "namespace must not be task, which begins the keys of the tasks themselves, it is \"task\"",
            ),
            (
                check(|config| config.key_prefix = KeyPrefix::Text("a||b".into())),
                "key_prefix must be 1 to 128 bytes without a bar, it is \"a||b\"",
            ),
            (
                check(|config| config.password = None),
                "the Redis address names the user \"u\", who has no password",
            ),
            (
                check(|config| config.ca_file = Some("ca.pem".into())),
                "ca_file is set, which needs an address that begins with rediss://",
            ),
        ] {
            assert_eq!(found, expected);
        }
    }
}
