//! The command line. Its flags derive from the table of configuration keys.

mod command;
mod migration;
mod run;

use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;

pub use command::command;

use crate::app::StartError;
use crate::config::{ConfigError, Effective};
use crate::{backend, http, shutdown, telemetry};

/// Exit code of a failure while running.
const EXIT_FAILURE: u8 = 1;
/// Exit code of a start that was refused.
const EXIT_REFUSED: u8 = 2;
/// Exit code of a command line that is not understood.
const EXIT_USAGE: u8 = 64;

/// How a command ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot write to stdout")]
    Output(#[source] std::io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("stopped at the second signal")]
    Interrupted,
    #[error(transparent)]
    Migration(migration::Failure),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Start(error.into())
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Start(_) => EXIT_REFUSED,
            Self::Output(_) | Self::Runtime(_) => EXIT_FAILURE,
            Self::Interrupted => shutdown::EXIT_INTERRUPTED,
            Self::Migration(failure) => failure.exit_code(),
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Start(error) => error.advice(),
            Self::Migration(failure) => failure.advice(),
            Self::Output(_) | Self::Runtime(_) | Self::Interrupted => None,
        }
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let is_wrong = error.use_stderr();
            // Nobody is left to tell when even this cannot be printed.
            let _ = error.print();
            return if is_wrong {
                EXIT_USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "task-server: {}", telemetry::chain(&failure));
            if let Some(advice) = failure.advice() {
                let _ = writeln!(stderr, "hint: {advice}");
            }
            failure.exit_code().into()
        }
    }
}

fn dispatch(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("serve", serve)) => run::task_api(command::configuration(serve)?.config),
        Some(("notification-service", service)) => {
            run::notification_service(command::configuration(service)?.config)
        }
        Some(("migration", migration)) => migration::run(migration),
        Some(("config", config)) => match config.subcommand() {
            Some(("show", show)) => {
                show_config(&command::configuration(show)?, show.get_flag("json"))
            }
            Some((_, check)) => {
                backend::check(&command::configuration(check)?.config)?;
                print("ok\n")
            }
            None => Ok(()),
        },
        Some(("openapi", _)) => print(
            &(http::description_text()
                + "
"),
        ),
        Some(("completions", completions)) => {
            let mut script = Vec::new();
            if let Some(shell) = completions.get_one::<clap_complete::Shell>("shell") {
                clap_complete::generate(*shell, &mut command(), "task-server", &mut script);
            }
            print(&String::from_utf8_lossy(&script))
        }
        Some(_) | None => run::task_api(command::configuration(matches)?.config),
    }
}

fn show_config(effective: &Effective, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let values = effective.values.iter().map(|(name, value, origin)| {
            let entry = serde_json::json!({ "value": value, "origin": origin.to_string() });
            ((*name).to_owned(), entry)
        });
        let object = serde_json::Value::Object(values.collect());
        return print(&format!("{object:#}\n"));
    }
    let mut text = String::new();
    for (name, value, origin) in &effective.values {
        use std::fmt::Write;
        let shown = if value.is_empty() { "(not set)" } else { value };
        let _ = writeln!(text, "{name:<28} {shown:<24} {origin}");
    }
    print(&text)
}

/// Prints what a command was asked for; a reader that has enough, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
