//! etcd, the API server, its controllers and its scheduler, and who may use them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::json;

use super::Program;
use super::kubectl::Kubectl;
use super::network::API_SERVER;
use crate::process::authority::{Authority, Subject, new_key};
use crate::wait::until;

/// How the cluster signs the tokens of its service accounts.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const ETCD: &str = "http://127.0.0.1:2379";

/// The running programs; killed when dropped.
#[derive(Debug)]
pub(super) struct Kubernetes {
    _programs: Vec<Program>,
    folder: PathBuf,
    pub(super) kubectl: Kubectl,
}

impl Kubernetes {
    /// Starts them and waits until the API server is ready; `kube` is all of them in one program.
    pub(super) async fn start(kube: &Path) -> Self {
        let flags = [
            ("--listen-client-urls", ETCD),
            ("--advertise-client-urls", ETCD),
            ("--listen-peer-urls", "http://127.0.0.1:2380"),
            ("--log-level", "warn"),
        ];
        let mut etcd = words(kube, "etcd", &flags);
        // A lost power would cost it data.
        etcd.push("--unsafe-no-fsync".into());
        let etcd = Program::start_in("etcd", |folder| {
            write_credentials(folder);
            etcd.extend(["--data-dir".into(), folder.join("data").into()]);
            etcd
        });
        let folder = etcd.folder().to_owned();
        let kubectl = Kubectl::new(kube, &folder.join("admin.json"), &folder);
        let mut server = Program::start("kube-apiserver", api_server(kube, &folder));
        until("the API server is ready", async || {
            server.must_run();
            kubectl.try_run(&["get", "--raw", "/readyz"]).await.ok()
        })
        .await;
        let controllers = Program::start("kube-controllers", controllers(kube, &folder));
        let scheduler = Program::start("kube-scheduler", scheduler(kube, &folder));
        Self {
            // In the order in which they may end.
            _programs: vec![scheduler, controllers, server, etcd],
            folder,
            kubectl,
        }
    }

    /// The configuration of a client with every right.
    pub(super) fn administrator(&self) -> PathBuf {
        self.folder.join("admin.json")
    }
}

/// A program of the one that has them all, with flags.
fn words(kube: &Path, program: &str, flags: &[(&str, &str)]) -> Vec<OsString> {
    let mut words = vec![kube.into(), program.into()];
    words.extend(
        flags
            .iter()
            .map(|(name, value)| format!("{name}={value}").into()),
    );
    words
}

fn api_server(kube: &Path, folder: &Path) -> Vec<OsString> {
    let file = |name: &str| folder.join(name).display().to_string();
    let flags = [
        ("--etcd-servers", ETCD),
        ("--bind-address", API_SERVER),
        ("--advertise-address", API_SERVER),
        ("--secure-port", "443"),
        ("--service-cluster-ip-range", "10.96.0.0/16"),
        ("--authorization-mode", "Node,RBAC"),
        ("--client-ca-file", &file("authority.pem")),
        ("--tls-cert-file", &file("server.pem")),
        ("--tls-private-key-file", &file("server.key")),
        ("--service-account-issuer", ISSUER),
        ("--service-account-key-file", &file("tokens.pem")),
        ("--service-account-signing-key-file", &file("tokens.key")),
    ];
    words(kube, "kube-apiserver", &flags)
}

fn controllers(kube: &Path, folder: &Path) -> Vec<OsString> {
    let file = |name: &str| folder.join(name).display().to_string();
    let flags = [
        ("--kubeconfig", &*file("controllers.json")),
        ("--authentication-kubeconfig", &file("controllers.json")),
        ("--authorization-kubeconfig", &file("controllers.json")),
        ("--service-account-private-key-file", &file("tokens.key")),
        ("--root-ca-file", &file("authority.pem")),
        ("--bind-address", "127.0.0.1"),
        ("--leader-elect", "false"),
        // The injector knows the controllers whose pods it may change by these accounts.
        ("--use-service-account-credentials", "true"),
        // No kubelet tells that the node is still there.
        ("--node-monitor-grace-period", "24h"),
    ];
    words(kube, "kube-controller-manager", &flags)
}

fn scheduler(kube: &Path, folder: &Path) -> Vec<OsString> {
    let file = folder.join("scheduler.json").display().to_string();
    let flags = [
        ("--kubeconfig", &*file),
        ("--authentication-kubeconfig", &file),
        ("--authorization-kubeconfig", &file),
        ("--bind-address", "127.0.0.1"),
        ("--leader-elect", "false"),
    ];
    words(kube, "kube-scheduler", &flags)
}

/// Writes the certificates of the API server and of its clients, and the key that signs tokens.
fn write_credentials(folder: &Path) {
    let write = |name: &str, text: String| {
        fs::write(folder.join(name), text).expect("a test directory can be written");
    };
    let authority = Authority::new();
    write("authority.pem", authority.certificate());
    let server = Subject {
        hosts: &[API_SERVER, "kubernetes.default.svc"],
        ..Subject::named("kube-apiserver")
    };
    let signed = authority.sign(server, ExtendedKeyUsagePurpose::ServerAuth);
    write("server.pem", signed.certificate);
    write("server.key", signed.key);
    let clients = [
        ("admin", "admin", Some("system:masters")),
        ("controllers", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
    ];
    for (file, name, organization) in clients {
        let client = Subject {
            organization,
            ..Subject::named(name)
        };
        let signed = authority.sign(client, ExtendedKeyUsagePurpose::ClientAuth);
        write(&format!("{file}.pem"), signed.certificate);
        write(&format!("{file}.key"), signed.key);
        write(&format!("{file}.json"), client_configuration(folder, file));
    }
    let key = new_key();
    write("tokens.key", key.serialize_pem());
    write("tokens.pem", key.public_key_pem());
}

/// What `--kubeconfig` takes: JSON is YAML.
fn client_configuration(folder: &Path, client: &str) -> String {
    let file = |end: &str| folder.join(format!("{client}.{end}"));
    let cluster = json!({
        "server": format!("https://{API_SERVER}"),
        "certificate-authority": folder.join("authority.pem"),
    });
    let user = json!({"client-certificate": file("pem"), "client-key": file("key")});
    let configuration = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": client, "user": user}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": client}}],
        "current-context": "tests",
    });
    configuration.to_string()
}
