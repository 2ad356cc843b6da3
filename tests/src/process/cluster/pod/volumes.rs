//! The files that a kubelet puts into a container: tokens of the pod's account, and what goes with them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Kubectl, Program, name_of, run};

/// Mounts every volume to where the containers want it; all of a pod's containers see all of them.
pub(super) async fn mount(kubectl: &Kubectl, pod: &Value, holder: &Program) {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    for volume in volumes {
        let name = name_of_volume(volume);
        let folder = holder.folder().join(name);
        fs::create_dir(&folder).expect("a test directory can be written");
        let sources = volume["projected"]["sources"].as_array();
        let sources = sources.unwrap_or_else(|| panic!("{name} is no projected volume"));
        for source in sources {
            fill(kubectl, pod, source, &folder).await;
        }
        for path in places(pod, name) {
            mount_at(holder, &folder, path);
        }
    }
}

fn name_of_volume(volume: &Value) -> &str {
    volume["name"].as_str().expect("a volume has a name")
}

/// Where the containers want a volume, each place once.
fn places<'a>(pod: &'a Value, volume: &str) -> Vec<&'a str> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mounts = containers.flat_map(|one| one["volumeMounts"].as_array().into_iter().flatten());
    let mounts = mounts.filter(|mount| mount["name"] == volume);
    let mut places: Vec<_> = mounts
        .filter_map(|mount| mount["mountPath"].as_str())
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

async fn fill(kubectl: &Kubectl, pod: &Value, source: &Value, folder: &Path) {
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("a test directory can be written");
    };
    if let Some(path) = source["serviceAccountToken"]["path"].as_str() {
        let audience = source["serviceAccountToken"]["audience"].as_str();
        write(path, &token(kubectl, pod, audience).await);
    } else if let Some(name) = source["configMap"]["name"].as_str() {
        let map = kubectl.json(&["get", "configmap", name]).await;
        for (name, text) in map["data"].as_object().into_iter().flatten() {
            write(name, text.as_str().unwrap_or_default());
        }
    } else if source["downwardAPI"].is_object() {
        // The one thing that accounts are told in this way.
        write("namespace", "default");
    } else {
        panic!("{source} is nothing that a test has needed yet");
    }
}

/// A token of the pod's account that is bound to the pod.
async fn token(kubectl: &Kubectl, pod: &Value, audience: Option<&str>) -> String {
    let account = pod["spec"]["serviceAccountName"].as_str();
    let account = account.expect("the API server names an account");
    let mut words = vec!["create", "token", account];
    words.extend([
        "--bound-object-kind=Pod",
        "--bound-object-name",
        name_of(pod),
    ]);
    if let Some(audience) = audience {
        words.extend(["--audience", audience]);
    }
    kubectl.run(&words).await
}

fn mount_at(holder: &Program, folder: &Path, place: &str) {
    let id = holder.id().to_string();
    let enter = ["--target", &*id, "--mount"];
    let folder = folder.display().to_string();
    run("nsenter", &[&enter[..], &["mkdir", "-p", place]].concat());
    let bind = ["mount", "--bind", &*folder, place];
    run("nsenter", &[&enter[..], &bind].concat());
}
