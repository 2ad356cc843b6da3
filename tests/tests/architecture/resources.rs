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
