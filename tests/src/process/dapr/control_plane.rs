//! The services behind actors, reminders, workflows and certificates.

use std::ffi::OsString;
use std::path::PathBuf;

use super::service::Service;
use super::{loopback, program, sentry_program};
use crate::process::TestDirectory;
use crate::process::port::free_port;

const HEALTH: &str = "/healthz";

/// The methods of a service that can fail, all of them the same.
macro_rules! service {
    ($name:ident) => {
        impl $name {
            /// `127.0.0.1:PORT`, where sidecars find it.
            #[must_use]
            pub fn address(&self) -> String {
                loopback(self.port)
            }

            /// Its process id.
            #[must_use]
            pub fn id(&self) -> u32 {
                self.service.id()
            }

            /// What it has written so far, over all its starts.
            #[must_use]
            pub fn log(&self) -> String {
                self.service.log()
            }

            /// Ends it at once, as a power failure would end the process. Its data stay.
            pub fn kill(&mut self) {
                self.service.kill();
            }

            /// Asks it to stop and waits for its end. Its data stay.
            ///
            /// # Panics
            /// If it does not end.
            pub async fn stop(&mut self) {
                self.service.stop().await;
            }

            /// Starts it again on the same ports and data, and waits until it is ready. If it runs, it is killed first.
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
    };
}

/// A running `placement`, which tells sidecars where actors live; killed when dropped.
#[derive(Debug)]
pub struct Placement {
    service: Service,
    port: u16,
}

service!(Placement);

impl Placement {
    /// Starts the service and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Self {
        let (port, health, raft) = (free_port(), free_port(), free_port());
        let mut words = words(program("placement"), port, health);
        words.push("--initial-cluster".into());
        words.push(format!("dapr-placement-0=127.0.0.1:{raft}").into());
        let directory = TestDirectory::new("placement");
        let service = Service::start(words, directory, (health, HEALTH)).await;
        Self { service, port }
    }
}

/// A running `scheduler`, which keeps reminders and wakes workflows; killed when dropped.
///
/// Its data are durable. After a kill sidecars find it again within half a minute.
#[derive(Debug)]
pub struct Scheduler {
    service: Service,
    port: u16,
}

service!(Scheduler);

impl Scheduler {
    /// Starts the service and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Self {
        let (port, health, client, peer) = (free_port(), free_port(), free_port(), free_port());
        let directory = TestDirectory::new("scheduler");
        let mut words = words(program("scheduler"), port, health);
        let more = [
            ("--etcd-data-dir", directory.path().join("data").into()),
            ("--etcd-client-port", client.to_string().into()),
            (
                "--etcd-initial-cluster",
                format!("dapr-scheduler-server-0=http://127.0.0.1:{peer}").into(),
            ),
            // What sidecars are told to connect to.
            ("--override-broadcast-host-port", loopback(port).into()),
        ];
        words.extend(
            more.into_iter()
                .flat_map(|(name, value): (&str, OsString)| [name.into(), value]),
        );
        let service = Service::start(words, directory, (health, HEALTH)).await;
        Self { service, port }
    }
}

/// A running `sentry`, the authority of certificates between sidecars; killed when dropped.
#[derive(Debug)]
pub struct Sentry {
    service: Service,
    port: u16,
    credentials: PathBuf,
}

service!(Sentry);

impl Sentry {
    /// Starts the service with an authority of its own and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Self {
        let (port, health) = (free_port(), free_port());
        let directory = TestDirectory::new("sentry");
        let credentials = directory.path().join("credentials");
        std::fs::create_dir(&credentials).expect("a test directory can be written");
        // It does not start without one.
        let configuration = directory.path().join("configuration.yaml");
        let written = std::fs::write(&configuration, "kind: Configuration");
        written.expect("a test directory can be written");
        let mut words = words(sentry_program(), port, health);
        words.push("--issuer-credentials".into());
        words.push(credentials.clone().into());
        words.push("--config".into());
        words.push(configuration.into());
        let service = Service::start(words, directory, (health, HEALTH)).await;
        Self {
            service,
            port,
            credentials,
        }
    }

    /// The certificate that sidecars are to trust, a file of PEM.
    #[must_use]
    pub fn trust_anchors(&self) -> PathBuf {
        self.credentials.join("ca.crt")
    }
}

/// A program with what all of these services understand.
fn words(program: OsString, port: u16, health: u16) -> Vec<OsString> {
    let mut words = vec![program];
    let arguments = [
        format!("--port={port}"),
        "--listen-address=127.0.0.1".to_owned(),
        format!("--healthz-port={health}"),
        // Version 1.16 does not heed it and listens on every address.
        "--healthz-listen-address=127.0.0.1".to_owned(),
        // Nor would it heed where metrics are to be asked for.
        "--enable-metrics=false".to_owned(),
    ];
    words.extend(arguments.map(OsString::from));
    words
}
