//! The rules of the architecture, as tests; each rule is shown to catch a violation.

mod dependencies;
mod promises;
mod resources;
mod rules;
mod violations;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rules::{Rule, Violations};
use task_tests::conformance::{event_bus, notifier, secret_store, state_store};

/// A source file: its path from the workspace's root, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of the workspace.
fn sources() -> Vec<Source> {
    const MEMBERS: [&str; 5] = [
        "task-core",
        "adapters-dapr",
        "adapters-direct",
        "server",
        "tests",
    ];
    let mut sources = Vec::new();
    for member in MEMBERS {
        collect(&root().join(member), member, &mut sources);
    }
    assert!(sources.len() > 50, "found only {} files", sources.len());
    sources
}

fn collect(folder: &Path, name: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder can be listed") {
        let entry = entry.expect("a folder can be listed");
        let kind = entry.file_type().expect("a file has a type");
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            if entry.file_name() != "target" {
                collect(&entry.path(), &path, sources);
            }
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("a source is UTF-8");
            sources.push(Source { path, text });
        }
    }
}

fn holds_everywhere(rule: Rule) {
    let sources = sources();
    let found = sources.iter().flat_map(|one| rule(&one.path, &one.text));
    none(&found.collect());
}

fn none(violations: &Violations) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// The sources of the ports, and the cases with the numbers of their promises.
fn ports() -> Vec<Source> {
    let mut sources = sources();
    sources.retain(|one| one.path.starts_with("task-core/src/ports/"));
    sources
}

fn cases() -> Vec<(&'static str, &'static str)> {
    let stores = state_store::CASES.iter().map(|one| (one.name, one.promise));
    let buses = event_bus::CASES.iter().map(|one| (one.name, one.promise));
    let notifiers = notifier::CASES.iter().map(|one| (one.name, one.promise));
    let secrets = secret_store::CASES.iter();
    let secrets = secrets.map(|one| (one.name, one.promise));
    stores
        .chain(buses)
        .chain(notifiers)
        .chain(secrets)
        .collect()
}

/// The resources in a folder, by name.
fn resources(folder: &str) -> Vec<Source> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder can be listed");
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let files = paths.filter(|path| path.is_file());
    let resources = files.map(|file| Source {
        path: file.file_name().unwrap_or_default().display().to_string(),
        text: fs::read_to_string(&file).expect("a resource is UTF-8"),
    });
    resources.collect()
}

#[test]
fn the_resources_of_a_cluster_are_in_its_namespace_and_nothing_else_is_beside_them() {
    let resources = resources("components");
    assert!(resources.len() >= 5, "found only {}", resources.len());
    let stray = resources.iter().filter(|one| !one.path.ends_with(".yaml"));
    let stray = stray.map(|one| format!("components/{} is no resource", one.path));
    let outside = resources
        .iter()
        .flat_map(|one| resources::is_in_the_namespace(&one.path, &one.text));
    none(&stray.chain(outside).collect());
}

#[test]
fn the_self_hosted_resources_mean_what_those_of_the_cluster_mean() {
    let cluster = resources("components");
    let mut found = Violations::new();
    for one in resources("components/self-hosted") {
        // Where secrets come from is what differs.
        if one.path.starts_with("secrets.") {
            continue;
        }
        match cluster.iter().find(|other| other.path == one.path) {
            Some(other) => {
                found.extend(resources::mean_the_same(&one.path, &other.text, &one.text))
            }
            None => found.push(format!("components has no {}", one.path)),
        }
    }
    none(&found);
}

#[test]
fn every_app_that_is_run_on_this_machine_listens_where_its_sidecar_calls() {
    let file = fs::read_to_string(root().join("dapr.yaml")).expect("a file is UTF-8");
    assert!(file.matches("- appID: ").count() >= 2, "{file}");
    none(&resources::apps_listen_where_they_are_called(
        "dapr.yaml",
        &file,
    ));
}

#[test]
fn every_must_of_a_port_names_a_case_that_exists() {
    let names: Vec<&str> = cases().into_iter().map(|(name, _)| name).collect();
    let ports = ports();
    let found = ports
        .iter()
        .flat_map(|one| promises::every_must_names_a_case(&one.path, &one.text, &names));
    none(&found.collect());
}

#[test]
fn every_case_is_named_by_its_promise() {
    let promises: Vec<_> = ports()
        .iter()
        .flat_map(|one| promises::promises(&one.text))
        .collect();
    assert!(promises.len() > 30, "found only {}", promises.len());
    none(&promises::every_case_is_promised(&promises, &cases()));
}

#[test]
fn the_core_knows_no_io_library() {
    let tree = cargo(&[
        "tree",
        "-p",
        "task-core",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}|{f}",
    ]);
    assert!(tree.contains("tokio"), "{tree}");
    none(&dependencies::core_knows_no_io(&tree));
}

#[test]
fn the_dapr_side_has_no_client_of_a_backend() {
    let package = "adapters-dapr";
    let tree = cargo(&[
        "tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}",
    ]);
    assert!(tree.contains("dapr v"), "{tree}");
    none(&dependencies::dapr_knows_no_backend(&tree));
}

#[test]
fn dependencies_point_to_the_core_and_nothing_depends_on_the_tests() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata = serde_json::from_str(&metadata).unwrap();
    let members = dependencies::members(&metadata);
    assert!(members.contains_key("task-core"), "{members:?}");
    none(&dependencies::layers_point_inwards(&members));
}

#[test]
fn no_file_is_longer_than_600_lines() {
    holds_everywhere(rules::file_is_short);
}

#[test]
fn no_function_is_longer_than_70_lines() {
    holds_everywhere(rules::functions_are_short);
}

#[test]
fn nothing_is_printed_or_left_undone() {
    holds_everywhere(rules::nothing_is_printed_or_left_undone);
}

#[test]
fn names_say_what_is_inside() {
    holds_everywhere(rules::names_say_what_is_inside);
}

#[test]
fn every_file_says_what_it_is_for() {
    holds_everywhere(rules::sources_say_what_they_are_for);
}

#[test]
fn every_mock_says_how_often_it_is_called() {
    holds_everywhere(rules::mocks_say_how_often);
}

#[test]
fn no_test_is_ignored() {
    holds_everywhere(rules::no_test_is_ignored);
}

#[test]
fn every_wrapper_of_a_port_forwards_every_method() {
    holds_everywhere(rules::wrappers_forward_every_method);
}

#[test]
fn every_adapter_folder_has_the_same_files() {
    let mut sources = sources();
    // A folder without any code is announced and not there yet.
    sources.retain(|one| rules::has_code(&one.text));
    let paths: Vec<&str> = sources.iter().map(|one| one.path.as_str()).collect();
    none(&rules::adapter_folders_are_alike(&paths));
}
