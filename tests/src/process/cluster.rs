//! A real Kubernetes with the real Dapr, in a network of its own, and its pods as processes.
//!
//! Real are etcd, the API server, its controllers and scheduler, and `kubectl`; Dapr's sentry, operator, injector
//! and placement; and in a [`Pod`] the programs of its containers, with the arguments, the environment, the tokens and
//! the address that a kubelet would give them. Not real is the kubelet: no image is pulled, nothing is restarted and
//! nothing limits a container. DNS and the proxy of services are lines in `/etc/hosts`.
//!
//! [`enter`] comes first: it starts the test's own process again in that network.

mod control_plane;
mod kubectl;
mod kubernetes;
mod network;
mod pod;
mod program;

use std::path::PathBuf;

pub use kubectl::Kubectl;
pub use network::enter;
pub use pod::{Container, Pod, Probe};

use super::installed::installed;
use control_plane::ControlPlane;
use kubernetes::Kubernetes;
use network::REDIS;
use program::Program;

/// Builds or finds everything that a cluster is made of, which may need the network of the machine.
///
/// # Panics
/// If something is missing and cannot be had.
pub fn prepare() {
    for name in ["k8s", "dapr-k8s", "redis"] {
        installed(name);
    }
}

/// A running cluster; gone when dropped or when the test process ends.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: what needs the others first.
    _control_plane: ControlPlane,
    _redis: Program,
    kubernetes: Kubernetes,
    dapr: PathBuf,
}

impl Cluster {
    /// Starts a cluster with one node, Dapr and the Redis that our components name.
    ///
    /// # Panics
    /// If this process is not in a network of its own, or something does not start.
    pub async fn start() -> Self {
        network::prepare();
        let dapr = installed("dapr-k8s");
        let kubernetes = Kubernetes::start(&installed("k8s").join("kube")).await;
        let redis = Program::start(
            "redis",
            vec![
                installed("redis").into(),
                "--bind".into(),
                REDIS.into(),
                // Nobody else is in this network.
                "--protected-mode".into(),
                "no".into(),
            ],
        );
        let control_plane = ControlPlane::start(&dapr, &kubernetes).await;
        let node = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/node.yaml");
        kubernetes.kubectl.run(&["apply", "-f", node]).await;
        Self {
            _control_plane: control_plane,
            _redis: redis,
            kubernetes,
            dapr,
        }
    }

    /// What an operator of the cluster uses.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubernetes.kubectl
    }

    /// The sidecar's program.
    #[must_use]
    pub fn daprd(&self) -> PathBuf {
        self.dapr.join("daprd")
    }
}
