//! Where the sidecar is, what it wants to see from us, and what its components are called.
//!
//! The sidecar's own environment variables are all there is: infrastructure is configured in Dapr
//! components. Each setting is resolved in this order, and an empty variable counts as unset:
//!
//! | Setting | First | Then | Otherwise |
//! | --- | --- | --- | --- |
//! | HTTP endpoint | `DAPR_HTTP_ENDPOINT` | `http://127.0.0.1:$DAPR_HTTP_PORT` | port 3500 |
//! | gRPC endpoint | `DAPR_GRPC_ENDPOINT` | `http://127.0.0.1:$DAPR_GRPC_PORT` | port 50001 |
//! | token that the sidecar wants | `DAPR_API_TOKEN` | | none is sent |
//! | token that the sidecar shows | `APP_API_TOKEN` | | none is asked for |
//!
//! A variable that another one overrides is checked all the same: it is a mistake that would show
//! itself on the day when the other one goes.
//!
//! *Source:* <https://docs.dapr.io/reference/environment/>.

use std::collections::HashMap;
use std::fmt;

use task_core::ports::Secret;
use url::Url;

/// The sidecar's HTTP port unless the environment says otherwise.
pub const DEFAULT_HTTP_PORT: u16 = 3500;

/// The sidecar's gRPC port unless the environment says otherwise.
pub const DEFAULT_GRPC_PORT: u16 = 50001;

/// A secret that one side of the sidecar shows to the other; never printed, wiped when dropped.
#[derive(Clone)]
pub struct Token(Secret);

impl Token {
    /// Longest token, in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// The token itself, for a header and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Compares in a time that depends on the lengths only, never on the content.
    #[must_use]
    pub fn matches(&self, candidate: &str) -> bool {
        self.0.matches(candidate)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// What the Dapr components are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// The state store.
    pub state_store: String,
    /// The event bus.
    pub pubsub: String,
    /// The secret store.
    pub secret_store: String,
}

impl Default for Components {
    /// `statestore`, `pubsub` and `kubernetes-secrets`, as in `components/`.
    fn default() -> Self {
        Self {
            state_store: "statestore".to_owned(),
            pubsub: "pubsub".to_owned(),
            secret_store: "kubernetes-secrets".to_owned(),
        }
    }
}

/// Everything that the adapters of this crate need to know.
///
/// ```
/// use adapters_dapr::SidecarConfig;
/// let variables = [("DAPR_HTTP_PORT", "3501"), ("DAPR_API_TOKEN", "hunter2")];
/// let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
/// let config = SidecarConfig::from_env_vars(variables).unwrap();
/// assert_eq!(config.http_endpoint, "http://127.0.0.1:3501");
/// assert_eq!(config.grpc_endpoint, "http://127.0.0.1:50001");
/// assert!(!format!("{config:?}").contains("hunter2"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SidecarConfig {
    /// The sidecar's HTTP API: scheme, host and port, without a final slash.
    pub http_endpoint: String,
    /// The sidecar's gRPC API: scheme, host and port, without a final slash.
    pub grpc_endpoint: String,
    /// Sent with every call to the sidecar.
    pub api_token: Option<Token>,
    /// Expected from the sidecar in every call to us.
    pub app_token: Option<Token>,
    /// What the components are called.
    pub components: Components,
    /// App id of the service that notifications go to.
    pub notification_app: String,
}

/// One variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name.
    pub variable: &'static str,
    /// What is wrong; of endpoints and tokens, which may hold secrets, without the value.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.detail)
    }
}

/// Every variable that cannot be used, never only the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", display(.0))]
pub struct ConfigError(Vec<Problem>);

impl ConfigError {
    /// The problems, in the order of the table above.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

fn display(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("; ")
}

impl SidecarConfig {
    /// Reads the sidecar's variables among all those of a process.
    ///
    /// # Errors
    /// Every variable that is set and cannot be used.
    pub fn from_env_vars(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut reader = Reader {
            variables: variables.into_iter().collect(),
            problems: Vec::new(),
        };
        let config = Self {
            http_endpoint: reader.address(
                "DAPR_HTTP_ENDPOINT",
                "DAPR_HTTP_PORT",
                DEFAULT_HTTP_PORT,
            ),
            grpc_endpoint: reader.address(
                "DAPR_GRPC_ENDPOINT",
                "DAPR_GRPC_PORT",
                DEFAULT_GRPC_PORT,
            ),
            api_token: reader.read("DAPR_API_TOKEN", token),
            app_token: reader.read("APP_API_TOKEN", token),
            components: Components::default(),
            notification_app: "notification-service".to_owned(),
        };
        if reader.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(reader.problems))
        }
    }
}

struct Reader {
    variables: HashMap<String, String>,
    problems: Vec<Problem>,
}

impl Reader {
    /// The parsed value; `None` if it is unset, empty or a problem.
    fn read<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.variables.get(variable).filter(|text| !text.is_empty());
        match text.map(|text| parse(text)) {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(detail)) => {
                self.problems.push(Problem { variable, detail });
                None
            }
        }
    }

    fn address(
        &mut self,
        endpoint_variable: &'static str,
        port_variable: &'static str,
        default_port: u16,
    ) -> String {
        let endpoint = self.read(endpoint_variable, endpoint);
        let port = self.read(port_variable, port).unwrap_or(default_port);
        endpoint.unwrap_or_else(|| format!("http://127.0.0.1:{port}"))
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("a port is 1 to 65535, this one is {text:?}")),
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("this is not a URL: {error}"))?;
    let refuse = |what: &str| Err(what.to_owned());
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("an endpoint begins with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("an endpoint holds no user name and no password");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return refuse("an endpoint is scheme, host and port, with nothing after them");
    }
    Ok(url.origin().ascii_serialization())
}

fn token(text: &str) -> Result<Token, String> {
    if text.len() > Token::MAX_BYTES {
        return Err(format!(
            "a token has at most {} bytes, this one has {}",
            Token::MAX_BYTES,
            text.len()
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token has visible ASCII characters only".to_owned());
    }
    let secret = Secret::new(text).ok_or("a token is not empty")?;
    Ok(Token(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<SidecarConfig, ConfigError> {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        SidecarConfig::from_env_vars(variables.iter().map(owned))
    }

    #[test]
    fn an_empty_environment_is_a_sidecar_on_this_host() {
        for variables in [&[][..], &[("DAPR_HTTP_PORT", ""), ("DAPR_API_TOKEN", "")]] {
            let config = read(variables).expect("the defaults");
            assert_eq!(config.http_endpoint, "http://127.0.0.1:3500");
            assert_eq!(config.grpc_endpoint, "http://127.0.0.1:50001");
            assert!(config.api_token.is_none() && config.app_token.is_none());
            assert_eq!(config.components.state_store, "statestore");
            assert_eq!(config.components.pubsub, "pubsub");
            assert_eq!(config.components.secret_store, "kubernetes-secrets");
            assert_eq!(config.notification_app, "notification-service");
        }
    }

    #[test]
    fn an_endpoint_beats_a_port_and_a_port_beats_the_default() {
        let config = read(&[
            ("DAPR_HTTP_ENDPOINT", "https://dapr.example:8443/"),
            ("DAPR_HTTP_PORT", "3501"),
            ("DAPR_GRPC_PORT", "50002"),
        ])
        .expect("valid");
        assert_eq!(config.http_endpoint, "https://dapr.example:8443");
        assert_eq!(config.grpc_endpoint, "http://127.0.0.1:50002");
    }

    #[test]
    fn each_token_has_its_own_direction() {
        let config = read(&[("DAPR_API_TOKEN", "ours"), ("APP_API_TOKEN", "theirs")]);
        let config = config.expect("valid");
        let exposed = |token: &Option<Token>| token.as_ref().map(|t| t.expose().to_owned());
        assert_eq!(exposed(&config.api_token).as_deref(), Some("ours"));
        assert_eq!(exposed(&config.app_token).as_deref(), Some("theirs"));
        let app_token = config.app_token.expect("it is set");
        assert!(app_token.matches("theirs") && !app_token.matches("their"));
    }

    #[test]
    fn all_problems_are_told_at_once_also_of_overridden_variables() {
        let error = read(&[
            ("DAPR_HTTP_ENDPOINT", "https://dapr.example"),
            ("DAPR_HTTP_PORT", "0"),
            ("DAPR_GRPC_ENDPOINT", "dns:dapr.example"),
            ("DAPR_GRPC_PORT", "x"),
            ("DAPR_API_TOKEN", "hunter2\n"),
            ("APP_API_TOKEN", &"x".repeat(Token::MAX_BYTES + 1)),
        ])
        .expect_err("five problems");
        let variables: Vec<_> = error.problems().iter().map(|p| p.variable).collect();
        assert_eq!(
            variables,
            [
                "DAPR_HTTP_PORT",
                "DAPR_GRPC_ENDPOINT",
                "DAPR_GRPC_PORT",
                "DAPR_API_TOKEN",
                "APP_API_TOKEN"
            ]
        );
        let text = error.to_string();
        assert!(
            text.starts_with("DAPR_HTTP_PORT: a port is 1 to 65535, this one is \"0\"; "),
            "{text}"
        );
    }

    #[test]
    fn an_endpoint_is_scheme_host_and_port() {
        for bad in [
            "dapr.example:443",
            "grpc://dapr.example",
            "https://user:hunter2@dapr.example",
            "https://hunter2@dapr.example",
            "https://dapr.example/hunter2",
            "https://dapr.example?tls=hunter2",
            "https://dapr.example:hunter2",
            "hunter2",
            "https://",
        ] {
            let error = read(&[("DAPR_GRPC_ENDPOINT", bad)]).expect_err(bad);
            assert_eq!(error.problems()[0].variable, "DAPR_GRPC_ENDPOINT");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let config = read(&[("DAPR_API_TOKEN", "hunter2"), ("APP_API_TOKEN", "hunter3")]);
        let shown = format!("{config:?}");
        assert!(shown.contains("Token(***)"), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
        let error = read(&[("DAPR_API_TOKEN", "hunter2 ")]).expect_err("a space");
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
    }
}
