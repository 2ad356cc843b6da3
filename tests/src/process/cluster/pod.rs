//! A pod whose containers are processes in a network of the pod's own.

mod environment;
mod volumes;

use std::ffi::OsString;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::network::{private_run, run};
use super::{Kubectl, Program};
use crate::process::Connection;
use crate::wait::until;

/// What runs as a container: the words that its image and its resource make.
#[derive(Debug, Clone)]
pub struct Container {
    /// The container's name.
    pub name: String,
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Variables beside those of the resource, as `NAME=VALUE`.
    pub variables: Vec<String>,
}

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether it gets requests.
    Readiness,
    /// Whether it lives.
    Liveness,
}

impl Probe {
    fn field(self) -> &'static str {
        match self {
            Self::Readiness => "readinessProbe",
            Self::Liveness => "livenessProbe",
        }
    }
}

/// A pod that runs; its processes are killed when it is dropped or when the test process ends.
#[derive(Debug)]
pub struct Pod {
    containers: Vec<Running>,
    // Dropped last: the others live in its namespaces.
    _holder: Program,
    resource: Value,
    address: String,
}

#[derive(Debug)]
struct Running {
    name: String,
    program: Program,
    /// Whether it has passed its readiness probe.
    ready: bool,
}

impl Pod {
    /// Gives a pod of the cluster its network and its volumes, and starts its containers.
    ///
    /// `number` differs for each pod of a cluster, from 0.
    ///
    /// # Panics
    /// If something does not start.
    pub async fn start(
        kubectl: &Kubectl,
        resource: &Value,
        number: u8,
        containers: Vec<Container>,
    ) -> Self {
        let words = ["unshare", "--net", "--mount", "sleep", "infinity"];
        let holder = Program::start("pod", words.map(OsString::from).to_vec());
        let address = connect(&holder, number).await;
        volumes::mount(kubectl, resource, &holder).await;
        let links = environment::of_services(&kubectl.json(&["get", "services"]).await);
        let start = |container: Container| {
            let spec = spec_of(resource, &container.name);
            let variables = environment::of_container(spec, resource, &address);
            let words = words_in(&holder, variables.iter().chain(&links), &container);
            Running {
                program: Program::start(&container.name, words),
                name: container.name,
                ready: false,
            }
        };
        Self {
            containers: containers.into_iter().map(start).collect(),
            _holder: holder,
            resource: resource.clone(),
            address,
        }
    }

    /// The pod's name.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(&self.resource)
    }

    /// The pod's address in the cluster.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What a container has written so far.
    ///
    /// # Panics
    /// If there is no such container.
    #[must_use]
    pub fn log(&self, container: &str) -> String {
        let mut all = self.containers.iter();
        let found = all.find(|one| one.name == container);
        let found = found.unwrap_or_else(|| panic!("no container {container}"));
        found.program.log()
    }

    /// Sends `GET` to a port of the pod from the node, and answers the status and the body; `None` if nobody listens.
    pub async fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let mut connection = Connection::open(self.socket(port)).await.ok()?;
        let answer = connection.send("GET", path, &[], "").await.ok()?;
        Some((answer.status, answer.text()))
    }

    /// Makes one of a container's probes, as the kubelet would, until it succeeds; answers what was asked.
    ///
    /// # Panics
    /// If the container has no such probe or ends, or the probe does not succeed within a minute.
    pub async fn probe(&mut self, container: &str, probe: Probe) -> String {
        let spec = &spec_of(&self.resource, container)[probe.field()];
        let target = target_of(spec);
        let (port, path) = target.unwrap_or_else(|| panic!("{container}: {spec}"));
        let address = self.socket(port);
        let passed = until(&format!("{container} passes {spec}"), async || {
            for one in &mut self.containers {
                one.program.must_run();
            }
            let mut connection = Connection::open(address).await.ok()?;
            let Some(path) = path else {
                return Some(format!("{address} accepts"));
            };
            let answer = connection.send("GET", path, &[], "").await.ok()?;
            let passed = (200..400).contains(&answer.status);
            passed.then(|| format!("{address}{path} {}", answer.status))
        })
        .await;
        let mut all = self.containers.iter_mut();
        if let Some(one) = all.find(|one| one.name == container && probe == Probe::Readiness) {
            one.ready = true;
        }
        passed
    }

    /// Tells the API server which containers run and have passed their readiness probes, as a kubelet would.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn report(&self, kubectl: &Kubectl) {
        let status = |holds: bool| if holds { "True" } else { "False" };
        let all_ready = status(self.containers.iter().all(|one| one.ready));
        let containers = self.containers.iter().map(|one| {
            let image = &spec_of(&self.resource, &one.name)["image"];
            json!({
                "name": one.name, "image": image, "imageID": "", "restartCount": 0,
                "ready": one.ready, "started": true, "state": {"running": {}},
            })
        });
        let status = json!({"status": {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "ContainersReady", "status": all_ready},
                {"type": "Ready", "status": all_ready},
            ],
            "containerStatuses": containers.collect::<Vec<_>>(),
        }});
        let status = status.to_string();
        let patch = ["patch", "pod", self.name(), "--subresource=status"];
        let rest = ["--type=merge", "--patch", &status];
        kubectl.run(&[&patch[..], &rest].concat()).await;
    }

    fn socket(&self, port: u16) -> SocketAddr {
        let address = format!("{}:{port}", self.address).parse();
        address.expect("an address and a port")
    }
}

/// The name in a resource.
fn name_of(resource: &Value) -> &str {
    let name = resource["metadata"]["name"].as_str();
    name.expect("a resource has a name")
}

/// What a pod's resource says of one of its containers.
fn spec_of<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let containers = pod["spec"]["containers"].as_array();
    let mut containers = containers.into_iter().flatten();
    let found = containers.find(|one| one["name"] == container);
    found.unwrap_or_else(|| panic!("{} has no container {container}", name_of(pod)))
}

/// Where a probe asks: a port, and a path unless it only connects.
fn target_of(probe: &Value) -> Option<(u16, Option<&str>)> {
    let path = probe["httpGet"]["path"].as_str();
    let by = if path.is_some() {
        "httpGet"
    } else {
        "tcpSocket"
    };
    let port = probe[by]["port"].as_u64()?;
    Some((u16::try_from(port).ok()?, path))
}

/// Lays a cable between the node and the pod; answers the pod's address.
async fn connect(holder: &Program, number: u8) -> String {
    let id = holder.id().to_string();
    // The process has its namespaces a moment after its start.
    let network = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/net")).ok();
    until("the pod has a network", async || {
        (network(&id) != network("self")).then_some(())
    })
    .await;
    let device = format!("pod-{number}");
    let node = format!("10.79.{number}.1");
    let pod = format!("10.79.{number}.2");
    let subnet = |address: &str| format!("{address}/30");
    let inside = |arguments: &[&str]| {
        let words = ["--target", &*id, "--net", "ip"];
        run("nsenter", &[&words[..], arguments].concat());
    };
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", &*id];
    run("ip", &[&["link", "add", &*device][..], &peer].concat());
    run("ip", &["address", "add", &subnet(&node), "dev", &device]);
    run("ip", &["link", "set", &device, "up"]);
    inside(&["link", "set", "lo", "up"]);
    inside(&["address", "add", &subnet(&pod), "dev", "eth0"]);
    inside(&["link", "set", "eth0", "up"]);
    inside(&["route", "add", "default", "via", &node]);
    private_run(&["nsenter", "--target", &id, "--mount"]);
    pod
}

/// A container's words behind those that put it into the pod, with no other variables than its own.
fn words_in<'a>(
    holder: &Program,
    variables: impl Iterator<Item = &'a String>,
    container: &Container,
) -> Vec<OsString> {
    let id = holder.id().to_string();
    let enter = ["nsenter", "--target", &id, "--net", "--mount", "--wd=/"];
    let mut words: Vec<OsString> = enter.iter().map(OsString::from).collect();
    words.extend(["env".into(), "--ignore-environment".into()]);
    words.extend(variables.map(OsString::from));
    words.extend(container.variables.iter().map(OsString::from));
    words.extend(container.words.iter().cloned());
    words
}
