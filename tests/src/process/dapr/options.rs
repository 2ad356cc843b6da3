//! What a sidecar is started with: its app, its resources, its neighbours.

use std::path::PathBuf;

use crate::process::TestDirectory;

/// How a sidecar talks to its app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 without encryption.
    H2c,
    /// gRPC without encryption.
    Grpc,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
        }
    }
}

/// The app that a sidecar stands beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct App {
    /// Where it listens on loopback.
    pub port: u16,
    /// What it speaks there.
    pub protocol: Protocol,
}

/// What a start waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readiness {
    /// All of it; the app listens, if there is one, and has told what it subscribes to.
    #[default]
    Complete,
    /// The components and the API, for an app that starts later.
    Outbound,
}

impl Readiness {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Complete => "/v1.0/healthz",
            Self::Outbound => "/v1.0/healthz/outbound",
        }
    }
}

/// The file in which the sidecars of a test find each other, in place of multicast.
#[derive(Debug)]
pub struct Names(TestDirectory);

impl Names {
    /// A file that nobody is in.
    #[must_use]
    pub fn new() -> Self {
        Self(TestDirectory::new("dapr-names"))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        names_in(&self.0)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

/// The file of names in a directory.
pub(super) fn names_in(directory: &TestDirectory) -> PathBuf {
    directory.path().join("names.db")
}

/// How a [`super::Sidecar`] is started.
#[derive(Debug, Clone, Default)]
pub struct SidecarOptions {
    /// The app id, by which others call it and under which its state is kept; see [`SidecarOptions::of`].
    pub app_id: String,
    /// The app, if there is one.
    pub app: Option<App>,
    /// What the start waits for.
    pub readiness: Readiness,
    /// Texts of YAML: components, subscriptions, resiliency; see [`super::Component`].
    pub resources: Vec<String>,
    /// Lines of YAML that the `spec` of the configuration has beside the resolution of names.
    pub configuration: String,
    /// Where it finds other sidecars, [`Names::path`]; alone if absent.
    pub names: Option<PathBuf>,
    /// [`super::Placement::address`], for actors.
    pub placement: Option<String>,
    /// [`super::Scheduler::address`], for reminders and workflows.
    pub scheduler: Option<String>,
    /// What the sidecar asks of its callers, in letters and digits.
    pub api_token: Option<String>,
    /// What the sidecar shows its app, in letters and digits.
    pub app_token: Option<String>,
    /// More arguments of `daprd`.
    pub arguments: Vec<String>,
    /// More variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl SidecarOptions {
    /// A sidecar of this app id, without an app and with these resources.
    #[must_use]
    pub fn of(app_id: &str, resources: impl IntoIterator<Item = impl ToString>) -> Self {
        Self {
            app_id: app_id.to_owned(),
            resources: resources.into_iter().map(|one| one.to_string()).collect(),
            ..Self::default()
        }
    }

    /// Puts it beside an app that speaks HTTP.
    #[must_use]
    pub fn beside(mut self, port: u16) -> Self {
        self.app = Some(App {
            port,
            protocol: Protocol::Http,
        });
        self
    }
}
