//! What the image runs, read off the `Dockerfile`.

use std::fs;

const DOCKERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Dockerfile");

/// The arguments of the image's program.
pub(crate) fn arguments() -> Vec<String> {
    instruction("CMD")
}

/// The words of an instruction that is written as JSON.
fn instruction(name: &str) -> Vec<String> {
    let text = fs::read_to_string(DOCKERFILE).expect("the Dockerfile can be read");
    let words = text.lines().find_map(|line| line.strip_prefix(name));
    let words = words.unwrap_or_else(|| panic!("the Dockerfile has no {name}"));
    serde_json::from_str(words).unwrap_or_else(|error| panic!("{name}{words}: {error}"))
}
