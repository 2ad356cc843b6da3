//! The real Dapr: sidecars, what they find each other by, and the services behind actors and reminders.
//!
//! Everything listens on loopback, on ports of its own that it keeps over restarts; only the health ports of
//! [`Placement`], [`Scheduler`] and [`Sentry`] cannot be kept there. Nothing is started that a case
//! does not ask for: state, events, invocation and secrets need a [`Sidecar`] and no more; actors and workflows need a
//! [`Placement`] and a [`Scheduler`] as well.

mod component;
mod control_plane;
mod neighbours;
mod options;
mod service;
mod sidecar;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use component::{Component, self_hosted};
pub use control_plane::{Placement, Scheduler, Sentry};
pub use neighbours::{
    API_TOKEN, APP_TOKEN, Neighbours, THEIR_APP_TOKEN, everything_taken, published,
};
pub use options::{App, Names, Protocol, Readiness, SidecarOptions};
pub use sidecar::Sidecar;

use super::installed::installed;

/// A program of Dapr that no other part of Dapr comes without.
fn program(name: &str) -> OsString {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    in_folder(FOLDER.get_or_init(|| installed("dapr")), name)
}

/// The certificate authority's program.
fn sentry_program() -> OsString {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    in_folder(FOLDER.get_or_init(|| installed("sentry")), "sentry")
}

fn in_folder(folder: &Path, name: &str) -> OsString {
    folder.join(name).into()
}

/// `127.0.0.1:PORT`.
fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
