//! The resources of Dapr: one set for a cluster and one for `dapr run`, which mean the same.

use crate::rules::Violations;

/// How every resource of the cluster says where it belongs.
const NAMESPACE: &str = "\n  namespace: default\n";

pub(crate) fn is_in_the_namespace(path: &str, text: &str) -> Violations {
    let missing = !text.contains(NAMESPACE);
    missing
        .then(|| format!("{path} is not in the namespace default"))
        .into_iter()
        .collect()
}

/// Two resources that may differ in their namespace and in their server, and in nothing else.
pub(crate) fn mean_the_same(name: &str, cluster: &str, self_hosted: &str) -> Violations {
    let expected = cluster.replace(NAMESPACE, "\n");
    let expected = expected.replace("redis-master.default.svc.cluster.local", "localhost");
    (expected != self_hosted)
        .then(|| format!("components/{name} and components/self-hosted/{name} differ"))
        .into_iter()
        .collect()
}

/// The port of the Task API where nothing else is said.
const DEFAULT_PORT: &str = "8000";

/// Apps of a file for `dapr run -f` whose command does not make them listen where their sidecar calls them.
pub(crate) fn apps_listen_where_they_are_called(name: &str, text: &str) -> Violations {
    let mut violations = Vec::new();
    for app in text.split("- appID: ").skip(1) {
        let id = app.lines().next().unwrap_or_default();
        let after = |field: &str| app.split_once(field).map(|(_, rest)| rest.lines().next());
        let port = after("appPort: ").flatten().unwrap_or_default();
        let command = after("command: ").flatten().unwrap_or_default();
        let listen = format!("--listen, \"127.0.0.1:{port}\"");
        if port != DEFAULT_PORT && !command.contains(&listen) {
            violations.push(format!("{name}: {id} does not listen on {port}"));
        }
    }
    violations
}
