//! Who may depend on whom, read from what cargo resolves.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::Violations;

/// Libraries that do I/O, or are made for one backend; the core knows none of them.
const FORBIDDEN: &[&str] = &[
    "axum",
    "dapr",
    "h2",
    "hyper",
    "hyper-util",
    "mio",
    "rdkafka",
    "redis",
    "reqwest",
    "rusqlite",
    "rustls",
    "socket2",
    "tonic",
    "tower",
    "ureq",
];

/// What the core may use of tokio, and what these features imply.
const TOKIO_FEATURES: &[&str] = &["default", "rt", "sync", "time"];

/// Forbidden libraries in `cargo tree --prefix none --format {p}|{f}` of the core.
pub(crate) fn core_knows_no_io(tree: &str) -> Violations {
    let mut violations = Vec::new();
    for line in tree.lines() {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let name = package.split_whitespace().next().unwrap_or_default();
        if FORBIDDEN.contains(&name) || name.starts_with("adapters-") {
            violations.push(format!("task-core depends on {name}"));
        }
        if name == "tokio" {
            let features = features.trim_end_matches(" (*)").split(',');
            let extra = features.filter(|one| !one.is_empty() && !TOKIO_FEATURES.contains(one));
            violations.extend(extra.map(|one| format!("task-core uses {one} of tokio")));
        }
    }
    violations
}

/// Clients of a backend that a build for Dapr must not have.
const BACKENDS: &[&str] = &[
    "rdkafka",
    "rdkafka-sys",
    "redis",
    "rusqlite",
    "tokio-postgres",
];

/// Clients of a backend in `cargo tree --prefix none --format {p}` of the adapters for Dapr.
pub(crate) fn dapr_knows_no_backend(tree: &str) -> Violations {
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let found = names.filter(|name| BACKENDS.contains(name) || *name == "adapters-direct");
    found
        .map(|name| format!("adapters-dapr depends on {name}"))
        .collect()
}

/// Dependencies between workspace members, each with those that it may have.
///
/// `members` maps each member to what it depends on.
pub(crate) fn layers_point_inwards(members: &BTreeMap<String, BTreeSet<String>>) -> Violations {
    let mut violations = Vec::new();
    for (member, dependencies) in members {
        for dependency in dependencies {
            if !members.contains_key(dependency) {
                continue;
            }
            let allowed = match member.as_str() {
                "task-core" => false,
                name if name.starts_with("adapters-") => dependency == "task-core",
                "task-tests" => true,
                _ => dependency != "task-tests",
            };
            if !allowed {
                violations.push(format!("{member} depends on {dependency}"));
            }
        }
    }
    violations
}

/// Members and their dependencies of every kind, from `cargo metadata --no-deps`.
pub(crate) fn members(metadata: &serde_json::Value) -> BTreeMap<String, BTreeSet<String>> {
    let packages = metadata["packages"].as_array();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let of = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array();
        all.into_iter()
            .flatten()
            .map(|one| text(&one["name"]))
            .collect()
    };
    let packages = packages.into_iter().flatten();
    packages.map(|one| (text(&one["name"]), of(one))).collect()
}
