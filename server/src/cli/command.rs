//! What the command line looks like, and the configuration that it gives.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::migration;
use crate::backend;
use crate::config::{ConfigError, Effective, KEYS, Key, Scope, Sources};

/// The notification service's own address, where nothing else is said.
const NOTIFICATION_LISTEN: &str = "127.0.0.1:8001";

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed while running
    2  refused to start: configuration, address in use, data directory in use, backend missing,
       or a server that the backend needs has not come within start_timeout_ms
   64  command line not understood
  130  stopped at once by a second signal

Every option is also a variable TASK_<OPTION> and a key of the configuration file, with underscores.
An option beats a variable, a variable beats the file, the file beats the default.";

/// The command line.
#[must_use]
pub fn command() -> Command {
    let root = Command::new("task-server")
        .about("The Task API as one program; without a command it serves")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXIT_CODES)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .infer_subcommands(false);
    configured(root, Scope::TaskApi)
        .subcommand(configured(
            Command::new("serve")
                .about("Serve the Task API (the default)")
                .after_help(EXIT_CODES),
            Scope::TaskApi,
        ))
        .subcommand(configured(
            Command::new("notification-service")
                .about("Receive notifications, print them and show them at /notifications")
                .after_help(EXIT_CODES),
            Scope::Both,
        ))
        .subcommand(migration::command())
        .subcommand(
            Command::new("config")
                .about("Look at the configuration")
                .subcommand_required(true)
                .subcommand(configured(
                    Command::new("check").about("Say ok, or everything that is wrong"),
                    Scope::TaskApi,
                ))
                .subcommand(configured(
                    Command::new("show")
                        .about("Print every value and where it comes from, passwords masked")
                        .arg(
                            Arg::new("json")
                                .long("json")
                                .action(ArgAction::SetTrue)
                                .help("Print JSON"),
                        ),
                    Scope::TaskApi,
                )),
        )
        .subcommand(Command::new("openapi").about("Print the API description (OpenAPI 3.1)"))
        .subcommand(
            Command::new("completions")
                .about("Print a completion script")
                .arg(
                    Arg::new("shell")
                        .value_name("SHELL")
                        .required(true)
                        .value_parser(value_parser!(clap_complete::Shell)),
                ),
        )
}

/// Adds the flags that a service has: all of them to the Task API, the common ones to the other.
fn configured(command: Command, service: Scope) -> Command {
    with_keys(command, service, |key| {
        key.scope == Scope::Both || key.scope == service
    })
}

/// Adds the flags by which a Redis is found.
pub(super) fn with_redis(command: Command) -> Command {
    const OTHERS: [&str; 2] = ["secrets", "start_timeout_ms"];
    with_keys(command, Scope::TaskApi, |key| {
        let is_of_redis = key.name.starts_with("redis_") && key.name != "redis_layout";
        is_of_redis || OTHERS.contains(&key.name)
    })
}

fn with_keys(command: Command, service: Scope, has: impl Fn(&Key) -> bool) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Configuration file (TOML) [variable: TASK_CONFIG]");
    let keys = KEYS.iter().filter(|key| has(key));
    command.arg(config).args(keys.map(|key| flag(key, service)))
}

fn flag(key: &Key, service: Scope) -> Arg {
    let default = default(key, service);
    let default = match default {
        "" => String::new(),
        text => format!(" [default: {text}]"),
    };
    Arg::new(key.name)
        .long(key.flag())
        .value_name(key.value)
        .allow_hyphen_values(true)
        .help(format!(
            "{}{default} [variable: {}]",
            key.help,
            key.variable()
        ))
}

fn default(key: &Key, service: Scope) -> &'static str {
    if key.name == "listen" && service == Scope::Both {
        return NOTIFICATION_LISTEN;
    }
    key.default
}

/// The configuration of a command.
pub(super) fn configuration(matches: &ArgMatches) -> Result<Effective, ConfigError> {
    let mut sources = Sources::read(matches.get_one::<PathBuf>("config").cloned());
    for key in KEYS {
        match matches.try_get_one::<String>(key.name) {
            Ok(Some(value)) => sources.flag(key.name, value.clone()),
            Ok(None) => {}
            // Only the notification service listens and lacks keys, and it has an address of its own.
            Err(_) => sources.default_of("listen", NOTIFICATION_LISTEN),
        }
    }
    sources.resolve_against(backend::conflicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_key_is_a_flag_of_serve_and_of_the_bare_command() {
        for arguments in [&["task-server"][..], &["task-server", "serve"][..]] {
            for key in KEYS {
                let flag = format!("--{}", key.flag());
                let line = arguments.iter().copied().chain([flag.as_str(), "x"]);
                assert!(command().try_get_matches_from(line).is_ok(), "{flag}");
            }
        }
    }

    #[test]
    fn the_notification_service_listens_beside_the_task_api() {
        let line = [
            "task-server",
            "notification-service",
            "--max-connections",
            "7",
        ];
        let matches = command().try_get_matches_from(line).expect("a valid line");
        let (_, service) = matches.subcommand().expect("a command");
        let config = configuration(service)
            .expect("a valid configuration")
            .config;
        assert_eq!(config.listen.to_string(), NOTIFICATION_LISTEN);
        assert_eq!(config.limits.max_connections, 7);
    }
}
