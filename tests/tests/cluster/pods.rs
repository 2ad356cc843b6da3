//! The pods that the cluster makes of the Deployment: injected, scheduled, run and asked.

use std::path::Path;

use serde_json::Value;
use task_tests::criteria::Criterion;
use task_tests::process::cluster::{Cluster, Container, Kubectl, Pod, Probe};
use task_tests::wait::until;

use crate::image;

const APP: &str = "task-api";
const SIDECAR: &str = "daprd";

/// What a sidecar gets that the injector did not write, because its container is a process here.
const ADJUSTED: [&str; 1] = ["DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK=true"];

/// Where a sidecar tells everybody what it has loaded.
const PUBLIC_PORT: u16 = 3501;

/// The components of a sidecar in a cluster: the first one it has by itself.
const LOADED: [&str; 4] = ["kubernetes", "kubernetes-secrets", "pubsub", "statestore"];

/// How many pods the Deployment asks for.
const REPLICAS: usize = 2;

/// Waits for the pods, runs them, and looks at both of their containers; answers the running pods.
pub(crate) async fn check(cluster: &Cluster, server: &Path, criterion: &mut Criterion) -> Vec<Pod> {
    let kubectl = cluster.kubectl();
    let mut resources = Vec::new();
    let injection = async {
        resources = scheduled(kubectl).await;
        injected(&resources)
    };
    let what = "two containers in each pod";
    criterion.check(what, injection).await;
    let what = "a pod that does not ask has one";
    criterion.check(what, left_alone(kubectl)).await;
    let mut pods = Vec::new();
    let probes = async {
        for (number, resource) in (0..).zip(&resources) {
            let containers = containers(cluster, server, resource);
            pods.push(Pod::start(kubectl, resource, number, containers).await);
        }
        probes(&mut pods).await
    };
    criterion.check("probes of both containers", probes).await;
    let what = "the sidecar logs `dapr initialized`";
    criterion.check(what, async { initialized(&pods) }).await;
    let what = "what the sidecar has loaded";
    criterion.check(what, loaded(&pods)).await;
    let reported = async {
        for pod in &pods {
            pod.report(kubectl).await;
        }
        endpoints(kubectl, &pods).await
    };
    let what = "the Service leads to the pods";
    criterion.check(what, reported).await;
    criterion.not_run("2/2 by a kubelet", &without_kubelet(kubectl).await);
    criterion.not_run("the image", "no Docker here to build it with");
    pods
}

/// Why the pods are not as ready as `kubectl` says, and what it says.
async fn without_kubelet(kubectl: &Kubectl) -> String {
    let table = kubectl.run(&["get", "pods"]).await;
    let table: Vec<&str> = table.lines().map(str::trim).collect();
    format!(
        "no kubelet here: the test ran the programs of both containers of each pod with the injected arguments and \
         variables, made the probes and told the API server of them; nothing was pulled, limited or restarted. \
         Beside what was injected: {}. `kubectl get pods`: {}",
        ADJUSTED.join(" "),
        table.join(" | "),
    )
}

/// Refuses to find nothing wrong with nothing.
fn complete<T>(pods: &[T]) -> Result<(), String> {
    if pods.len() == REPLICAS {
        return Ok(());
    }
    Err(format!("{} of {REPLICAS} pods", pods.len()))
}

/// The pods of the Deployment, as soon as each of them has a node.
async fn scheduled(kubectl: &Kubectl) -> Vec<Value> {
    until("two pods have a node", async || {
        let pods = kubectl
            .json(&["get", "pods", "--selector=app=task-api"])
            .await;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let placed = |pod: &&Value| pod["spec"]["nodeName"].is_string();
        (pods.iter().filter(placed).count() == REPLICAS).then_some(pods)
    })
    .await
}

/// The containers of a pod's resource.
fn of(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().into_iter().flatten()
}

/// The words in a field of a container.
fn words<'a>(container: &'a Value, field: &str) -> Vec<&'a str> {
    let words = container[field].as_array().into_iter().flatten();
    words.filter_map(Value::as_str).collect()
}

fn injected(pods: &[Value]) -> Result<String, String> {
    complete(pods)?;
    let mut evidence = String::new();
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let names: Vec<&str> = of(pod).filter_map(|one| one["name"].as_str()).collect();
        if names != [APP, SIDECAR] {
            return Err(format!("{name} has the containers {names:?}"));
        }
        let sidecar = of(pod).find(|one| one["name"] == SIDECAR);
        let arguments = words(sidecar.unwrap_or(&Value::Null), "args");
        for wanted in [
            &["--app-id", "task-api"][..],
            &["--app-port", "8000"],
            &["--mode", "kubernetes"],
            &["--enable-api-logging=true"],
            &["--enable-mtls"],
        ] {
            if !arguments.windows(wanted.len()).any(|found| found == wanted) {
                return Err(format!("{name} lacks {wanted:?} in {arguments:?}"));
            }
        }
        evidence = format!("{}: {names:?}, {}", name, arguments.join(" "));
    }
    Ok(evidence)
}

/// Whether the injector changes only what it is asked to change.
async fn left_alone(kubectl: &Kubectl) -> Result<String, String> {
    let plain = ["run", "plain", "--image=plain", "--dry-run=server"];
    let pod = kubectl.json(&plain).await;
    let names: Vec<&str> = of(&pod).filter_map(|one| one["name"].as_str()).collect();
    if names == ["plain"] {
        Ok(format!("{names:?}"))
    } else {
        Err(format!("{names:?}"))
    }
}

/// What runs as the containers of a pod: the server for our image, daprd for Dapr's.
fn containers(cluster: &Cluster, server: &Path, pod: &Value) -> Vec<Container> {
    let containers = of(pod).map(|container| {
        let name = container["name"].as_str().unwrap_or_default();
        let (program, arguments, variables) = if name == SIDECAR {
            // The first one is the program in the image.
            let arguments = words(container, "args");
            let arguments = arguments.iter().skip(1).map(|&one| one.to_owned());
            let variables = ADJUSTED.map(str::to_owned).to_vec();
            (cluster.daprd(), arguments.collect(), variables)
        } else {
            (server.to_owned(), image::arguments(), Vec::new())
        };
        let mut words = vec![program.into_os_string()];
        words.extend(arguments.into_iter().map(Into::into));
        Container {
            name: name.to_owned(),
            words,
            variables,
        }
    });
    containers.collect()
}

async fn probes(pods: &mut [Pod]) -> Result<String, String> {
    complete(pods)?;
    let mut answers = Vec::new();
    for pod in pods {
        for container in [APP, SIDECAR] {
            for probe in [Probe::Readiness, Probe::Liveness] {
                answers.push(pod.probe(container, probe).await);
            }
        }
    }
    Ok(answers.join(", "))
}

fn initialized(pods: &[Pod]) -> Result<String, String> {
    complete(pods)?;
    let mut evidence = Vec::new();
    for pod in pods {
        let log = pod.log(SIDECAR);
        let line = log.lines().find(|line| line.contains("dapr initialized"));
        let line = line.ok_or_else(|| format!("{} does not say it:\n{log}", pod.name()))?;
        evidence.push(format!("{}: {line}", pod.name()));
    }
    Ok(evidence.join(", "))
}

/// Asks each sidecar for the resources that the operator gave it.
async fn loaded(pods: &[Pod]) -> Result<String, String> {
    complete(pods)?;
    let mut evidence = String::new();
    for pod in pods {
        let metadata = pod.get(PUBLIC_PORT, "/v1.0/metadata").await;
        let (_, metadata) = metadata.ok_or("no metadata")?;
        let metadata: Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
        let components = metadata["components"].as_array().into_iter().flatten();
        let mut names: Vec<&str> = components.filter_map(|one| one["name"].as_str()).collect();
        names.sort_unstable();
        if names != LOADED {
            return Err(format!("{} has the components {names:?}", pod.name()));
        }
        let subscription = &metadata["subscriptions"][0];
        let found = (&subscription["topic"], &subscription["rules"][0]["path"]);
        if found.0 != "task-events" || found.1 != "/events/task-events" {
            return Err(format!("{} subscribes to {subscription}", pod.name()));
        }
        let log = pod.log(SIDECAR);
        for wanted in [
            "Loading Resiliency configuration: resiliency",
            "Security is initialized successfully",
        ] {
            if !log.contains(wanted) {
                return Err(format!("{} does not log {wanted}", pod.name()));
            }
        }
        evidence = format!("{names:?}, {subscription}, resiliency, an identity of sentry");
    }
    Ok(evidence)
}

/// Where the Service leads once the pods are ready.
async fn endpoints(kubectl: &Kubectl, pods: &[Pod]) -> Result<String, String> {
    complete(pods)?;
    let mut expected: Vec<&str> = pods.iter().map(Pod::address).collect();
    expected.sort_unstable();
    let slice = ["get", "endpointslices"];
    let slice = [
        &slice[..],
        &["--selector=kubernetes.io/service-name=task-api"],
    ]
    .concat();
    let found = until("the Service has endpoints", async || {
        let slices = kubectl.json(&slice).await;
        let slice = slices["items"][0].clone();
        let endpoints = slice["endpoints"].as_array()?.clone();
        let ready = endpoints
            .iter()
            .filter(|one| one["conditions"]["ready"] == true);
        (ready.count() == expected.len()).then_some(slice)
    })
    .await;
    let endpoints = found["endpoints"].as_array().into_iter().flatten();
    let mut addresses: Vec<&str> = endpoints
        .filter_map(|one| one["addresses"][0].as_str())
        .collect();
    addresses.sort_unstable();
    let port = &found["ports"][0]["port"];
    if addresses == expected && *port == 8000 {
        Ok(format!("{addresses:?} port {port}"))
    } else {
        Err(format!(
            "{addresses:?} port {port}, the pods are {expected:?}"
        ))
    }
}
