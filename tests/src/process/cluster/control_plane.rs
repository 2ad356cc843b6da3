//! Dapr's own programs in a cluster: sentry, operator, injector and placement.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Program;
use super::kubernetes::Kubernetes;
use super::network::{OPERATOR, PLACEMENT, SENTRY};
use crate::process::Connection;
use crate::wait::until;

/// Where the injector looks for its own token; without one it gives sidecars none.
const INJECTOR_TOKEN: &str = "/var/run/secrets/dapr.io/sentrytoken/token";

/// Where the authority's certificate is, as in Dapr's own pods.
const TRUST_ANCHORS: &str = "/var/run/secrets/dapr.io/tls/ca.crt";

/// What sentry watches for an authority of the operator's, and what stays empty.
const CREDENTIALS: &str = "/var/run/secrets/dapr.io/credentials";

const SENTRY_ADDRESS: &str = "dapr-sentry.dapr-system.svc.cluster.local:443";

/// Who gets a token from sentry for what it is called.
const AUDIENCE: &str = "spiffe://cluster.local/ns/dapr-system/dapr-sentry";

/// Which of them are told by a flag, and not only by variables, how they reach the API server.
const KNOW_THE_FLAG: [&str; 2] = ["sentry", "injector"];

/// The running programs; killed when dropped.
#[derive(Debug)]
pub(super) struct ControlPlane {
    _programs: Vec<Program>,
}

impl ControlPlane {
    /// Defines Dapr's resources, starts its programs and waits until they are healthy.
    pub(super) async fn start(dapr: &Path, kubernetes: &Kubernetes) -> Self {
        define_resources(dapr, kubernetes).await;
        let administrator = kubernetes.administrator();
        let start = |name: &str, token: Option<&Path>, flags: &[&str]| {
            Program::start(name, words(dapr, name, &administrator, token, flags))
        };
        let tokens = Tokens::create(kubernetes).await;
        fs::create_dir_all(CREDENTIALS).expect("the cluster has a /run of its own");
        let mut sentry = start(
            "sentry",
            None,
            &[
                "--mode=kubernetes",
                "--trust-domain=cluster.local",
                &format!("--listen-address={SENTRY}"),
                "--port=443",
                "--healthz-port=8081",
                "--metrics-port=9091",
            ],
        );
        trust(kubernetes, &mut sentry).await;
        let operator = start(
            "operator",
            Some(&tokens.operator),
            &[
                &format!("--listen-address={OPERATOR}"),
                "--port=443",
                "--healthz-port=8082",
                "--metrics-port=9092",
                "--disable-leader-election",
            ],
        );
        let injector = start(
            "injector",
            Some(Path::new(INJECTOR_TOKEN)),
            &["--port=4000", "--healthz-port=8083", "--metrics-port=9093"],
        );
        let placement = start(
            "placement",
            Some(&tokens.placement),
            &[
                "--mode=kubernetes",
                "--tls-enabled",
                "--trust-domain=cluster.local",
                &format!("--trust-anchors-file={TRUST_ANCHORS}"),
                &format!("--sentry-address={SENTRY_ADDRESS}"),
                &format!("--listen-address={PLACEMENT}"),
                "--port=50005",
                "--healthz-port=8084",
                "--metrics-port=9094",
            ],
        );
        let mut programs = vec![placement, injector, operator, sentry];
        for (program, port) in programs.iter_mut().zip([8084, 8083, 8082, 8081]) {
            healthy(program, port).await;
        }
        Self {
            _programs: programs,
        }
    }
}

/// Applies the definitions of Dapr's resources, and what its chart would make.
async fn define_resources(dapr: &Path, kubernetes: &Kubernetes) {
    let kubectl = &kubernetes.kubectl;
    let definitions = dapr.join("crds").display().to_string();
    kubectl.run(&["apply", "-f", &definitions]).await;
    // The operator would convert older versions of it, but only behind a service with a certificate.
    let plain = r#"{"spec":{"conversion":{"strategy":"None","webhook":null}}}"#;
    let subscriptions = "customresourcedefinition/subscriptions.dapr.io";
    let patch = ["patch", subscriptions, "--type=merge", "--patch", plain];
    kubectl.run(&patch).await;
    let established = "--for=condition=Established";
    kubectl
        .run(&["wait", established, "crd", "--all", "--timeout=60s"])
        .await;
    // The injector reads once, at its start, which controllers may ask for sidecars.
    until("the controllers have their accounts", async || {
        let account = ["get", "serviceaccount", "replicaset-controller"];
        let account = [&account[..], &["--namespace=kube-system"]].concat();
        kubectl.try_run(&account).await.ok()
    })
    .await;
    let system = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/dapr-system.yaml");
    kubectl.run(&["apply", "-f", system]).await;
}

/// Waits for sentry's authority and puts its certificate to where the others look for it.
async fn trust(kubernetes: &Kubernetes, sentry: &mut Program) {
    let bundle = ["get", "configmap", "dapr-trust-bundle"];
    let rest = [
        "--namespace=dapr-system",
        r"--output=jsonpath={.data.ca\.crt}",
    ];
    let bundle = [&bundle[..], &rest].concat();
    let certificate = until("sentry has an authority", async || {
        sentry.must_run();
        let certificate = kubernetes.kubectl.run(&bundle).await;
        certificate.contains("BEGIN").then_some(certificate)
    })
    .await;
    write(Path::new(TRUST_ANCHORS), &certificate);
}

/// The tokens by which Dapr's programs show sentry who they are.
struct Tokens {
    operator: PathBuf,
    placement: PathBuf,
}

impl Tokens {
    async fn create(kubernetes: &Kubernetes) -> Self {
        let folder = kubernetes.administrator().with_file_name("tokens");
        write(
            Path::new(INJECTOR_TOKEN),
            &token_of("injector", kubernetes).await,
        );
        let tokens = Self {
            operator: folder.join("operator"),
            placement: folder.join("placement"),
        };
        write(&tokens.operator, &token_of("operator", kubernetes).await);
        write(&tokens.placement, &token_of("placement", kubernetes).await);
        tokens
    }
}

/// A token that is bound to a pod, because sentry accepts no other; nobody ever runs that pod.
async fn token_of(part: &str, kubernetes: &Kubernetes) -> String {
    let name = format!("dapr-{part}");
    let metadata = |more: serde_json::Value| {
        let mut metadata = json!({"name": name, "namespace": "dapr-system"});
        let fields = metadata.as_object_mut().expect("an object");
        fields.extend(more.as_object().cloned().unwrap_or_default());
        metadata
    };
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(json!({}))});
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(json!({"annotations": {"dapr.io/control-plane": part}})),
        "spec": {
            "schedulerName": "none",
            "serviceAccountName": name,
            "containers": [{"name": part, "image": "dapr"}],
        },
    });
    let kubectl = &kubernetes.kubectl;
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [account, pod]});
    kubectl.apply(&name, &both).await;
    let namespace = ["--namespace=dapr-system"];
    let create = ["create", "token", &name, "--audience", AUDIENCE];
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", &name];
    kubectl
        .run(&[&create[..], &bound, &namespace].concat())
        .await
}

fn words(
    dapr: &Path,
    program: &str,
    administrator: &Path,
    token: Option<&Path>,
    flags: &[&str],
) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["env".into()];
    let variables = [
        "NAMESPACE=dapr-system",
        // They want to be the user of their images.
        "DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK=true",
        // The operator's webhook needs a service with a certificate.
        "ENABLE_WEBHOOKS=false",
        // The rest is what the injector reads.
        "SIDECAR_IMAGE=daprd",
        "SIDECAR_IMAGE_PULL_POLICY=IfNotPresent",
        "KUBE_CLUSTER_DOMAIN=cluster.local",
        "DAPR_CONTROL_PLANE_TRUST_DOMAIN=cluster.local",
    ];
    words.extend(variables.map(OsString::from));
    words.push(format!("DAPR_TRUST_ANCHORS_FILE={TRUST_ANCHORS}").into());
    words.push(format!("DAPR_SENTRY_ADDRESS={SENTRY_ADDRESS}").into());
    for variable in ["KUBECONFIG", "KUBE_CONFIG"] {
        words.push(format!("{variable}={}", administrator.display()).into());
    }
    if let Some(token) = token {
        words.push(format!("DAPR_SENTRY_TOKEN_FILE={}", token.display()).into());
    }
    words.push(dapr.join(program).into());
    if KNOW_THE_FLAG.contains(&program) {
        words.push(format!("--kubeconfig={}", administrator.display()).into());
    }
    words.extend(flags.iter().map(OsString::from));
    words
}

async fn healthy(program: &mut Program, port: u16) {
    until(&format!("healthy on {port}"), async || {
        program.must_run();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut connection = Connection::open(address).await.ok()?;
        let answer = connection.send("GET", "/healthz", &[], "").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Writes a file into a folder that may be missing.
fn write(file: &Path, text: &str) {
    let folder = file.parent().expect("a file is in a folder");
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(file, text));
    written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
