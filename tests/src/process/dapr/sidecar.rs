//! `daprd`, and what may happen to one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::component::quoted;
use super::options::{SidecarOptions, names_in};
use super::service::{Service, ask};
use super::{loopback, program};
use crate::process::port::free_port;
use crate::process::{Response, TestDirectory};

/// The header that carries the token of [`SidecarOptions::api_token`].
const API_TOKEN: &str = "dapr-api-token";

/// A running `daprd`, killed and removed when dropped or when the test process ends.
///
/// A start takes a tenth to half a second.
#[derive(Debug)]
pub struct Sidecar {
    service: Service,
    ports: Ports,
    api_token: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    grpc: u16,
    internal: u16,
}

impl Sidecar {
    /// Starts a sidecar and waits as its options say.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(options: SidecarOptions) -> Self {
        let mut sidecar = Self::launch(options);
        sidecar.ready().await;
        sidecar
    }

    /// Starts a sidecar that may have to wait, for example for a component's server.
    #[must_use]
    pub fn launch(options: SidecarOptions) -> Self {
        let directory = TestDirectory::new("daprd");
        let ports = Ports {
            http: free_port(),
            grpc: free_port(),
            internal: free_port(),
        };
        write_files(&options, &directory);
        let words = words(&options, ports, directory.path());
        Self {
            service: Service::launch(words, directory, (ports.http, options.readiness.path())),
            ports,
            api_token: options.api_token,
        }
    }

    /// Waits as the options say; see [`super::Readiness`].
    ///
    /// # Panics
    /// If it ends, or is not ready within a minute.
    pub async fn ready(&mut self) {
        self.service.ready().await;
    }

    /// The port of the HTTP API.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.ports.http
    }

    /// The port of the gRPC API.
    #[must_use]
    pub fn grpc_port(&self) -> u16 {
        self.ports.grpc
    }

    /// `http://127.0.0.1:PORT` of the HTTP API.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", loopback(self.ports.http))
    }

    /// `http://127.0.0.1:PORT` of the gRPC API.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        format!("http://{}", loopback(self.ports.grpc))
    }

    /// Sends one request to the HTTP API on a connection of its own, with the token unless the headers have one.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let given = headers.iter().any(|(name, _)| *name == API_TOKEN);
        let token = self.api_token.as_deref().filter(|_| !given);
        let token = token.map(|token| (API_TOKEN, token));
        let headers: Vec<_> = headers.iter().copied().chain(token).collect();
        let answer = ask(self.ports.http, method, path, &headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// The sidecar's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.service.id()
    }

    /// What it has written so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.service.log()
    }

    /// Ends it at once, as a power failure would end the process.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(&mut self) {
        self.service.stop().await;
    }

    /// Starts it again on the same ports, and waits as the options say. If it runs, it is killed first.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.service.restart().await;
    }

    /// Stops it from doing anything; its connections stay open and silent.
    pub fn pause(&self) {
        self.service.pause();
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.service.resume();
    }
}

fn resources_in(directory: &Path) -> PathBuf {
    directory.join("resources")
}

fn configuration_in(directory: &Path) -> PathBuf {
    directory.join("configuration.yaml")
}

fn write_files(options: &SidecarOptions, directory: &TestDirectory) {
    let writable = "a test directory can be written";
    let resources = resources_in(directory.path());
    fs::create_dir(&resources).expect(writable);
    for (number, text) in options.resources.iter().enumerate() {
        fs::write(resources.join(format!("{number}.yaml")), text).expect(writable);
    }
    let names = options.names.clone();
    let names = names.unwrap_or_else(|| names_in(directory));
    let configuration = format!(
        "apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: tests
spec:
  nameResolution:
    component: sqlite
    version: v1
    configuration:
      connectionString: {}
{}",
        quoted(&names.display().to_string()),
        options.configuration
    );
    fs::write(configuration_in(directory.path()), configuration).expect(writable);
}

fn words(options: &SidecarOptions, ports: Ports, directory: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["env".into()];
    words.extend(environment(options).map(OsString::from));
    words.push(program("daprd"));
    let own = [
        ("--app-id", options.app_id.clone()),
        ("--dapr-listen-addresses", "127.0.0.1".to_owned()),
        ("--dapr-http-port", ports.http.to_string()),
        ("--dapr-grpc-port", ports.grpc.to_string()),
        (
            "--dapr-internal-grpc-listen-address",
            "127.0.0.1".to_owned(),
        ),
        ("--dapr-internal-grpc-port", ports.internal.to_string()),
        (
            "--resources-path",
            resources_in(directory).display().to_string(),
        ),
        (
            "--config",
            configuration_in(directory).display().to_string(),
        ),
    ];
    let app = options.app.iter().flat_map(|app| {
        [
            ("--app-port", app.port.to_string()),
            ("--app-protocol", app.protocol.name().to_owned()),
        ]
    });
    let placement = options.placement.iter().cloned();
    let scheduler = options.scheduler.iter().cloned();
    let all = own
        .into_iter()
        .chain(app)
        .chain(placement.map(|address| ("--placement-host-address", address)))
        .chain(scheduler.map(|address| ("--scheduler-host-address", address)));
    words.extend(all.flat_map(|(name, value)| [name.into(), value.into()]));
    // Their port listens on every address, whatever is asked for.
    words.push("--enable-metrics=false".into());
    words.extend(options.arguments.iter().map(OsString::from));
    words
}

/// Variables as `NAME=VALUE`.
fn environment(options: &SidecarOptions) -> impl Iterator<Item = String> {
    let token = |name: &str, token: &Option<String>| {
        let token = token.as_deref().unwrap_or_default();
        (name.to_owned(), token.to_owned())
    };
    let own = [
        // Where other sidecars find its actors.
        ("DAPR_HOST_IP".to_owned(), "127.0.0.1".to_owned()),
        // An empty one counts as none, and hides one that the tests are run with.
        token("DAPR_API_TOKEN", &options.api_token),
        token("APP_API_TOKEN", &options.app_token),
    ];
    let all = own.into_iter().chain(options.environment.iter().cloned());
    all.map(|(name, value)| format!("{name}={value}"))
}
