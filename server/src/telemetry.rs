//! Logs: one line per failure on stderr, with its causes, without payloads and secrets.

use std::error::Error;
use std::fmt::Write;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};

/// Most causes that one line names.
const MAX_CAUSES: usize = 16;

/// Begins to log as configured. A second call in one process changes nothing.
pub fn init(config: &Config) {
    let builder = fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(LevelFilter::from_level(config.log));
    let begun = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .try_init(),
    };
    if begun.is_err() {
        tracing::debug!("logging was set up before");
    }
}

/// Logs a failure and its causes in one line.
pub fn log_failure(what: &str, error: &(dyn Error + 'static)) {
    tracing::error!(error = %chain(error), "{what}");
}

/// An error and its causes, from the outermost inwards, each text once.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..MAX_CAUSES {
        let Some(current) = cause else { break };
        let own = current.to_string();
        // Some errors print their source as well; once is enough.
        if !text.contains(&own) {
            let _ = write!(text, ": {own}");
        }
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use task_core::ports::{ErrorKind, PortError};

    use super::*;

    #[test]
    fn causes_are_named_once_and_in_order() {
        let inner =
            PortError::new(ErrorKind::Denied, "file", "open").caused_by("disk is read only");
        let outer = PortError::new(ErrorKind::Unavailable, "embedded", "put").caused_by(inner);
        let text = "embedded put: unavailable: file open: denied: disk is read only";
        assert_eq!(chain(&outer), text);
    }
}
