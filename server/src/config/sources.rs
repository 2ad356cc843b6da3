//! Where values come from, which one wins, and everything that is wrong with them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use adapters_direct::secrets::{VARIABLE_PREFIX as SECRET_PREFIX, Variables};

use super::keys::{self, KEYS, Key, VARIABLE_PREFIX};
use super::{AdminVariables, Config, Conflict, SidecarVariables, suggest, url};

/// Longest part of a refused value that a message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// Everything that was given, before it is parsed.
#[derive(Debug, Default)]
pub struct Sources {
    flags: BTreeMap<&'static str, String>,
    variables: BTreeMap<&'static str, String>,
    file: BTreeMap<&'static str, String>,
    secrets: Variables,
    sidecar: SidecarVariables,
    defaults: BTreeMap<&'static str, &'static str>,
    file_path: Option<PathBuf>,
    problems: Vec<Problem>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// An environment variable.
    Variable(String),
    /// The configuration file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    key: String,
    origin: Origin,
    detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.detail)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The problems, file first, then variables, then values.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("the configuration has a problem:")?,
            count => write!(f, "the configuration has {count} problems:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A valid configuration and where each of its values came from.
#[derive(Debug)]
pub struct Effective {
    /// The typed values.
    pub config: Config,
    /// The values as text with userinfo masked, and their origins, in the order of the table.
    pub values: Vec<(&'static str, String, Origin)>,
}

impl Sources {
    /// Reads the process's environment, and the file that a flag or `TASK_CONFIG` names.
    ///
    /// What cannot be read or is not known becomes a problem of [`resolve`](Self::resolve).
    #[must_use]
    pub fn read(config_flag: Option<PathBuf>) -> Self {
        let mut sources = Self::default();
        let named = sources.environment(environment());
        if let Some(path) = config_flag.or(named) {
            sources.file(&path);
        }
        sources
    }

    /// Takes a flag's value.
    pub fn flag(&mut self, name: &'static str, value: String) {
        self.flags.insert(name, value);
    }

    /// Replaces the table's default of a key, for a program that has another one.
    pub fn default_of(&mut self, name: &'static str, value: &'static str) {
        self.defaults.insert(name, value);
    }

    /// Takes the variables of ours and answers the file that they name.
    fn environment(
        &mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Option<PathBuf> {
        let mut config_file = None;
        for (name, value) in variables {
            let Ok(variable) = name.into_string() else {
                continue;
            };
            if SidecarVariables::has(&variable) {
                let value = value.to_string_lossy().into_owned();
                self.sidecar.extend([(variable, value)]);
                continue;
            }
            let Some(suffix) = variable.strip_prefix(VARIABLE_PREFIX) else {
                continue;
            };
            if variable.starts_with(SECRET_PREFIX) {
                self.secrets.extend([(variable, value)]);
                continue;
            }
            let origin = Origin::Variable(variable.clone());
            if suffix == "CONFIG" {
                config_file = Some(PathBuf::from(value));
                continue;
            }
            let lower = suffix.to_lowercase();
            let known = keys::find(&lower).filter(|key| key.variable() == variable);
            match (known, value.into_string()) {
                (Some(key), Ok(value)) => {
                    self.variables.insert(key.name, value);
                }
                (Some(key), Err(_)) => self.problem(key.name, origin, "must be UTF-8".to_owned()),
                (None, _) if is_service_link(suffix) || AdminVariables::has(&variable) => {}
                (None, _) => self.unknown(&lower, origin, |key| key.variable()),
            }
        }
        config_file
    }

    fn file(&mut self, path: &Path) {
        self.file_path = Some(path.to_owned());
        let origin = Origin::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.problem("config", origin, format!("cannot be read: {error}"));
            }
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                // The parser's own text may repeat a secret of the file; its message does not.
                let line = error
                    .span()
                    .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
                let detail = format!("line {line} is not TOML: {}", error.message());
                return self.problem("config", origin, detail);
            }
        };
        for (name, value) in table {
            let Some(key) = keys::find(&name) else {
                self.unknown(&name, origin.clone(), |key| key.name.to_owned());
                continue;
            };
            match value {
                toml::Value::String(text) => drop(self.file.insert(key.name, text)),
                toml::Value::Integer(number) => {
                    drop(self.file.insert(key.name, number.to_string()))
                }
                toml::Value::Float(_)
                | toml::Value::Boolean(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_) => {
                    let detail =
                        format!("must be a string or an integer, not {}", value.type_str());
                    self.problem(key.name, origin.clone(), detail);
                }
            }
        }
    }

    /// Parses what wins for each key.
    ///
    /// # Errors
    /// Every problem of every source, with key, origin, limit and value.
    pub fn resolve(self) -> Result<Effective, ConfigError> {
        self.resolve_against(|_| Vec::new())
    }

    /// Parses what wins for each key, and asks what else is wrong with that.
    ///
    /// # Errors
    /// Every problem of every source, with key, origin, limit and value.
    pub fn resolve_against(
        mut self,
        rules: impl FnOnce(&Config) -> Vec<Conflict>,
    ) -> Result<Effective, ConfigError> {
        let mut config = Config::unset();
        config.secret_variables = std::mem::take(&mut self.secrets);
        config.sidecar_variables = std::mem::take(&mut self.sidecar);
        let mut values = Vec::with_capacity(KEYS.len());
        for key in KEYS {
            let (text, origin) = self.winner(key);
            let unset = text.is_empty() && origin == Origin::Default;
            if !unset && let Err(limit) = (key.set)(&mut config, &text) {
                let detail = format!("{limit}, not {}", shown(&text));
                self.problem(key.name, origin.clone(), detail);
                // The default lets the rules look at the other keys; what they say of this one is dropped.
                let _ = (key.set)(&mut config, key.default);
            }
            values.push((key.name, url::mask(&text), origin));
        }
        let found = config.conflicts().into_iter().chain(rules(&config));
        for conflict in found {
            let (key, other) = (conflict.key, conflict.other);
            let known = |name| self.problems.iter().any(|known| known.key == name);
            if known(key) || other.is_some_and(known) {
                continue;
            }
            let value = values.iter().find(|(name, ..)| *name == key);
            let origin = value.map_or(Origin::Default, |(.., origin)| origin.clone());
            self.problem(key, origin, conflict.problem);
        }
        match self.problems.is_empty() {
            true => Ok(Effective { config, values }),
            false => Err(ConfigError {
                problems: self.problems,
            }),
        }
    }

    fn winner(&mut self, key: &Key) -> (String, Origin) {
        if let Some(text) = self.flags.remove(key.name) {
            return (text, Origin::Flag);
        }
        if let Some(text) = self.variables.remove(key.name) {
            return (text, Origin::Variable(key.variable()));
        }
        if let (Some(text), Some(path)) = (self.file.remove(key.name), &self.file_path) {
            return (text, Origin::File(path.clone()));
        }
        let default = self.defaults.get(key.name).copied();
        (default.unwrap_or(key.default).to_owned(), Origin::Default)
    }

    fn problem(&mut self, key: &str, origin: Origin, detail: String) {
        self.problems.push(Problem {
            key: key.to_owned(),
            origin,
            detail,
        });
    }

    fn unknown(&mut self, name: &str, origin: Origin, spell: impl Fn(&Key) -> String) {
        let near = suggest::nearest(name, KEYS.iter().map(|key| key.name));
        let hint = near
            .and_then(keys::find)
            .map(|key| format!(", did you mean {}?", spell(key)));
        let detail = format!("is not a known key{}", hint.unwrap_or_default());
        self.problem(name, origin, detail);
    }
}

/// A refused value as a message repeats it: quoted, bounded, without userinfo.
fn shown(text: &str) -> String {
    let masked = url::mask(text);
    let short: String = masked.chars().take(MAX_SHOWN_CHARS).collect();
    let more = if short.len() < masked.len() {
        "…"
    } else {
        ""
    };
    format!("{short:?}{more}")
}

/// Says whether Kubernetes sets this variable in every pod beside a Service `task-…`.
///
/// A Service `task-api` gives `TASK_API_SERVICE_HOST`, `TASK_API_PORT_80_TCP_ADDR` and more. Refusing
/// them would keep the program from starting in its own namespace.
fn is_service_link(suffix: &str) -> bool {
    let names_a_port = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    suffix.ends_with("_SERVICE_HOST")
        || suffix.contains("_SERVICE_PORT")
        || suffix.ends_with("_PORT")
        || suffix.split("_PORT_").skip(1).any(names_a_port)
}

/// The one place that reads the environment.
pub(super) fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        let owned: Vec<_> = pairs.iter().map(|(k, v)| (k.into(), v.into())).collect();
        owned.into_iter()
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("task-server-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("a writable directory for temporary files");
        path
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let path = file(
            "precedence",
            "redelivery_max = 3\nmax_concurrency = 3\nmax_connections = \"3\"\n",
        );
        let mut sources = Sources::default();
        sources.file(&path);
        let pairs = [
            ("TASK_MAX_CONCURRENCY", "2"),
            ("TASK_REDELIVERY_MAX", "2"),
            ("OTHER", "x"),
        ];
        assert_eq!(sources.environment(variables(&pairs)), None);
        sources.flag("redelivery_max", "1".to_owned());
        let Effective { config, values } = sources.resolve().expect("valid");
        std::fs::remove_file(&path).expect("the file was written");
        let seen = (
            config.redelivery.max_deliveries,
            config.limits.max_concurrency,
            config.limits.max_connections,
        );
        assert_eq!(seen, (1, 2, 3));
        let origin = |name| {
            &values
                .iter()
                .find(|(key, ..)| *key == name)
                .expect("a key")
                .2
        };
        assert_eq!(origin("redelivery_max"), &Origin::Flag);
        assert_eq!(
            origin("max_concurrency").to_string(),
            "variable TASK_MAX_CONCURRENCY"
        );
        assert_eq!(origin("max_connections"), &Origin::File(path));
        assert_eq!(origin("listen"), &Origin::Default);
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let path = file("problems", "lisen = \"127.0.0.1:1\"\nlog = true\n");
        let mut sources = Sources::default();
        sources.file(&path);
        sources.environment(variables(&[
            ("TASK_MAX_BODY_BYTES", "12"),
            ("TASK_LGO", "info"),
        ]));
        sources.flag("backend", "mysql".to_owned());
        sources.flag("notification_url", "ftp://me:secret@host".to_owned());
        let text = sources.resolve().expect_err("problems").to_string();
        std::fs::remove_file(&path).expect("the file was written");
        let file = path.display();
        assert_eq!(
            text,
            format!(
                "the configuration has 6 problems:\n  \
                 lisen (file {file}): is not a known key, did you mean listen?\n  \
                 log (file {file}): must be a string or an integer, not boolean\n  \
                 lgo (variable TASK_LGO): is not a known key, did you mean TASK_LOG?\n  \
                 backend (flag): must be one of embedded, direct, dapr, parallel, not \"mysql\"\n  \
                 notification_url (flag): must be an http or https address without user name, query and fragment, \
                 for example http://127.0.0.1:8001, not \"ftp://***@host\"\n  \
                 max_body_bytes (variable TASK_MAX_BODY_BYTES): must be an integer of 1024 to 524288, not \"12\""
            )
        );
    }

    #[test]
    fn keys_that_contradict_each_other_are_refused() {
        let mut sources = Sources::default();
        sources.flag("redelivery_first_pause_ms", "70000".to_owned());
        let text = sources.resolve().expect_err("a conflict").to_string();
        assert!(
            text.contains(
                "must not exceed redelivery_longest_pause_ms, which is 60000, it is 70000"
            )
        );
    }

    #[test]
    fn variables_that_kubernetes_sets_are_not_ours() {
        let links = [
            ("TASK_API_SERVICE_HOST", "10.0.0.1"),
            ("TASK_API_SERVICE_PORT", "80"),
            ("TASK_API_SERVICE_PORT_HTTP", "80"),
            ("TASK_API_PORT", "tcp://10.0.0.1:80"),
            ("TASK_API_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("TASK_API_PORT_80_TCP_PROTO", "tcp"),
            ("TASK_API_PORT_80_TCP_PORT", "80"),
            ("TASK_API_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("TASK_AGENT_SYSTEM_SERVICE_HOST", "10.0.0.2"),
        ];
        for link in links {
            let mut sources = Sources::default();
            sources.environment(variables(&[link]));
            assert!(sources.resolve().is_ok(), "{} was refused", link.0);
        }
        let mut sources = Sources::default();
        sources.environment(variables(&[("TASK_IMPORT", "x")]));
        assert!(sources.resolve().is_err());
    }

    #[test]
    fn the_variables_of_who_asks_are_no_misspelt_keys() {
        let mut sources = Sources::default();
        let pairs = [
            ("TASK_ADMIN", "http://127.0.0.1:9800"),
            ("TASK_ADMIN_TOKEN", "canary-4d"),
        ];
        sources.environment(variables(&pairs));
        let shown = format!("{sources:?}");
        assert!(sources.resolve().is_ok());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_secret_of_the_environment_is_taken_and_never_shown() {
        let mut sources = Sources::default();
        let pairs = [
            ("TASK_SECRET_REDIS__PASSWORD", "canary-91c4"),
            ("TASK_SECRET_REDIS_PORT", "canary-91c5"),
        ];
        sources.environment(variables(&pairs));
        let mut shown = format!("{sources:?}");
        let effective = sources.resolve().expect("no key is wrong");
        shown.push_str(&format!("{effective:?}"));
        assert!(shown.contains("TASK_SECRET_REDIS__PASSWORD"), "{shown}");
        assert!(shown.contains("TASK_SECRET_REDIS_PORT"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");

        let mut sources = Sources::default();
        let pairs = [("TASK_SECRET", "canary-1"), ("TASK_secret_a", "canary-2")];
        sources.environment(variables(&pairs));
        let error = sources.resolve().expect_err("both are misspelt");
        assert_eq!(error.problems().len(), 2, "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem() {
        let mut sources = Sources::default();
        sources.file(Path::new("/nonexistent/task.toml"));
        let text = sources.resolve().expect_err("no such file").to_string();
        assert!(
            text.contains("config (file /nonexistent/task.toml): cannot be read"),
            "{text}"
        );
    }
}
