//! The program for Dapr alone, built with the words of the `Dockerfile` but for the profile.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use task_tests::process::TestDirectory;

/// What chooses the package and its features.
pub(crate) const SELECTION: &str = "--package task-server --no-default-features --features dapr";

const DOCKERFILE: &str = include_str!("../../../Dockerfile");

/// A copy of the program: the next build of the workspace puts another one in the place of the first.
pub(crate) struct Program(TestDirectory);

impl Program {
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("task-server")
    }
}

/// Builds the program.
///
/// # Panics
/// If it cannot be built, or the image has another one.
pub(crate) fn for_dapr() -> Program {
    let image = format!("cargo build --release --locked {SELECTION}");
    assert!(
        DOCKERFILE.contains(&image),
        "the image is not built by {image}"
    );
    let this = std::env::current_exe().expect("a test has a path");
    // <target>/<profile>/deps/<test>
    let target = this.ancestors().nth(3);
    let target = target.expect("a test lies in a target folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--locked"]);
    build.args(SELECTION.split(' '));
    build.arg("--target-dir").arg(target);
    let built = build.status().expect("cargo runs");
    assert!(built.success(), "the program for Dapr does not build");
    let copy = Program(TestDirectory::new("dapr-build"));
    let program = target.join("debug/task-server");
    fs::copy(program, copy.path()).expect("the program can be copied");
    copy
}
