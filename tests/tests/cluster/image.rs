//! What the image runs, read off the `Dockerfile`.

use std::fs;

const DOCKERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Dockerfile");

/// What the server is asked for beside the image's own words.
///
/// The server has no Dapr backend yet. As soon as it has one, this is empty, and the pods run what the image runs.
const INSTEAD_OF_DAPR: Option<&[&str]> =
    Some(&["--backend", "embedded", "--data-dir", "/run/tasks"]);

/// The arguments of the image's program.
pub(crate) fn arguments() -> Vec<String> {
    let arguments = instruction("CMD");
    let Some(instead) = INSTEAD_OF_DAPR else {
        return arguments;
    };
    let backend = arguments.iter().position(|word| word == "--backend");
    let backend = backend.expect("the image names the backend");
    let mut arguments = arguments;
    let instead = instead.iter().map(|&word| word.to_owned());
    arguments.splice(backend..backend + 2, instead);
    arguments
}

/// How the arguments differ from the image's, to be told.
pub(crate) fn difference() -> &'static str {
    match INSTEAD_OF_DAPR {
        Some(_) => "the embedded backend in place of dapr, which the server does not have yet",
        None => "none",
    }
}

/// The words of an instruction that is written as JSON.
fn instruction(name: &str) -> Vec<String> {
    let text = fs::read_to_string(DOCKERFILE).expect("the Dockerfile can be read");
    let words = text.lines().find_map(|line| line.strip_prefix(name));
    let words = words.unwrap_or_else(|| panic!("the Dockerfile has no {name}"));
    serde_json::from_str(words).unwrap_or_else(|error| panic!("{name}{words}: {error}"))
}
