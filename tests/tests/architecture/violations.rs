//! Each rule against a text that breaks it, and one beside it that does not.

use std::collections::{BTreeMap, BTreeSet};

use crate::dependencies::{core_knows_no_io, dapr_knows_no_backend, layers_point_inwards};
use crate::promises::{every_case_is_promised, every_must_names_a_case, promises};
use crate::resources::{apps_listen_where_they_are_called, is_in_the_namespace, mean_the_same};
use crate::rules::{
    Rule, adapter_folders_are_alike, file_is_short, functions_are_short, has_code,
    mocks_say_how_often, names_say_what_is_inside, no_test_is_ignored,
    nothing_is_printed_or_left_undone, sources_say_what_they_are_for, without_strings_and_comments,
    wrappers_forward_every_method,
};

const PATH: &str = "server/src/app.rs";

#[track_caller]
fn catches(rule: Rule, text: &str) {
    assert_eq!(rule(PATH, text).len(), 1, "{:?}", rule(PATH, text));
}

#[track_caller]
fn allows(rule: Rule, text: &str) {
    assert_eq!(rule(PATH, text), Vec::<String>::new());
}

#[test]
fn a_file_of_601_lines_is_caught() {
    catches(file_is_short, &"\n".repeat(601));
    allows(file_is_short, &"\n".repeat(600));
}

#[test]
fn a_function_of_71_lines_is_caught_whatever_its_strings_hold() {
    let function = |lines: usize| {
        let filler = "    let text = \"}\"; // }\n".repeat(lines - 2);
        format!("    pub(crate) async fn long<'a>(x: [u8; 2]) -> char {{\n{filler}}}\n")
    };
    catches(functions_are_short, &function(71));
    allows(functions_are_short, &function(70));
    allows(
        functions_are_short,
        &format!("fn a();\n{}", "\n".repeat(80)),
    );
}

#[test]
fn quotes_and_comments_are_no_code() {
    let text = "a(\"}\\\"\", '{', r#\"}\"#, b'}'); // {\nfn f<'a>() {} /* } */";
    let code = without_strings_and_comments(text);
    assert_eq!(code.matches(['{', '}']).count(), 2, "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn printing_is_caught_outside_of_the_command_line() {
    catches(nothing_is_printed_or_left_undone, "println!(\"x\");");
    catches(nothing_is_printed_or_left_undone, "todo!()");
    allows(nothing_is_printed_or_left_undone, "// println!(\"x\");");
    allows(nothing_is_printed_or_left_undone, "my_println!(\"x\");");
    let example = nothing_is_printed_or_left_undone("task-core/examples/a.rs", "println!(\"x\");");
    assert!(example.is_empty());
    let cli = nothing_is_printed_or_left_undone("server/src/cli/mod.rs", "println!(\"x\");");
    assert!(cli.is_empty(), "{cli:?}");
}

#[test]
fn a_name_that_says_nothing_is_caught() {
    assert_eq!(names_say_what_is_inside("server/src/utils.rs", "").len(), 1);
    assert_eq!(names_say_what_is_inside("a/common/x.rs", "").len(), 1);
    catches(names_say_what_is_inside, "pub mod helpers;");
    allows(names_say_what_is_inside, "mod tests { use x::utils; }");
}

#[test]
fn a_file_without_a_module_doc_is_caught() {
    catches(sources_say_what_they_are_for, "use std::fmt;");
    allows(sources_say_what_they_are_for, "//! Says it.");
    allows(
        sources_say_what_they_are_for,
        "#![doc = include_str!(\"guide.md\")]",
    );
}

#[test]
fn a_mock_without_times_is_caught() {
    catches(mocks_say_how_often, "mock.expect_get().returning(f);");
    catches(
        mocks_say_how_often,
        "mock.expect_get().returning(f);\nmock.expect_put().times(1);",
    );
    allows(mocks_say_how_often, "mock.expect_get()\n  .times(1);");
    allows(mocks_say_how_often, "result.expect_err(\"fails\");");
}

#[test]
fn an_ignored_test_is_caught() {
    catches(no_test_is_ignored, "#[test]\n#[ignore]\nfn f() {}");
    catches(no_test_is_ignored, "#[ignore = \"slow\"]");
    allows(no_test_is_ignored, "// #[ignore]");
}

#[test]
fn a_wrapper_that_may_miss_a_method_is_caught() {
    let wrapper = "impl EventBus for W {\n    fn f() { self.inner.f() }\n}\n";
    catches(wrappers_forward_every_method, wrapper);
    let denies = format!("x\n\n#[deny(clippy::missing_trait_methods)]\n{wrapper}");
    allows(wrappers_forward_every_method, &denies);
    allows(
        wrappers_forward_every_method,
        "impl EventBus for W {\n    fn f() {}\n}\n",
    );
}

#[test]
fn an_adapter_folder_without_its_files_is_caught() {
    let found = adapter_folders_are_alike(&[
        "adapters-direct/src/lib.rs",
        "adapters-direct/src/redis/mod.rs",
        "adapters-direct/src/redis/config.rs",
    ]);
    assert_eq!(found, ["adapters-direct/src/redis/error.rs is missing"]);
    assert!(!has_code("//! Redis.\n") && has_code("//! Redis.\nmod a;\n"));
}

#[test]
fn an_io_library_or_more_of_tokio_in_the_core_is_caught() {
    let tree = "task-core v0.1.0 (/x)|\nmio v1.0.0|net\ntokio v1.0.0|net,rt,sync (*)\nserde v1|";
    let found = core_knows_no_io(tree);
    assert_eq!(
        found,
        ["task-core depends on mio", "task-core uses net of tokio"]
    );
}

#[test]
fn a_client_of_a_backend_on_the_dapr_side_is_caught() {
    let tree = "adapters-dapr v0.1.0\ntask-core v0.1.0\nredis v1.8.1\nredis-protocol v6.0.0 (*)";
    assert_eq!(
        dapr_knows_no_backend(tree),
        ["adapters-dapr depends on redis"]
    );
}

#[test]
fn a_dependency_outwards_is_caught() {
    let members = [
        ("task-core", "adapters-dapr"),
        ("adapters-dapr", "adapters-direct"),
        ("adapters-direct", "task-core"),
        ("task-server", "task-tests"),
        ("task-tests", "task-server"),
    ];
    let members: BTreeMap<String, BTreeSet<String>> = members
        .into_iter()
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])))
        .collect();
    let expected = [
        "adapters-dapr depends on adapters-direct",
        "task-core depends on adapters-dapr",
        "task-server depends on task-tests",
    ];
    assert_eq!(layers_point_inwards(&members), expected);
}

#[test]
fn a_promise_without_its_case_and_a_must_without_a_promise_are_caught() {
    let text = "/// Port.\n///\n/// # Contract\n/// - **S1** It MUST work.\n///   (`it_works`)\n\
                /// - **S2** It MUST sing.\n///\n/// It MUST dance.\n///\n/// # Errors\n/// MUST\n";
    let found = every_must_names_a_case("p.rs", text, &["it_works"]);
    assert_eq!(
        found,
        [
            "p.rs has a MUST outside its numbered promises",
            "p.rs: S2 names no case"
        ]
    );
    let found = every_must_names_a_case("p.rs", text, &[]);
    assert_eq!(found[1], "p.rs: S1 names it_works, which is no case");
    let promises = promises(text);
    let found = every_case_is_promised(&promises, &[("it_works", "S1"), ("stray", "S2")]);
    assert_eq!(found, ["S2 does not name stray"]);
}

#[test]
fn a_resource_of_another_namespace_or_with_another_meaning_is_caught() {
    let cluster = "metadata:\n  name: a\n  namespace: default\nhost: redis-master.default.svc.cluster.local:6379\n";
    assert_eq!(is_in_the_namespace("a.yaml", cluster), [""; 0]);
    assert_eq!(
        is_in_the_namespace("a.yaml", "metadata:\n  name: a\n").len(),
        1
    );
    let same = "metadata:\n  name: a\nhost: localhost:6379\n";
    assert_eq!(mean_the_same("a.yaml", cluster, same), [""; 0]);
    let other = same.replace("6379", "6380");
    assert_eq!(mean_the_same("a.yaml", cluster, &other).len(), 1);
}

#[test]
fn an_app_that_its_sidecar_calls_in_vain_is_caught() {
    let app = |more: &str| {
        format!("apps:\n  - appID: a\n    appPort: 8001\n    command: [a, serve{more}]\n")
    };
    let listens = app(", --listen, \"127.0.0.1:8001\"");
    assert_eq!(apps_listen_where_they_are_called("f", &listens), [""; 0]);
    let found = apps_listen_where_they_are_called("f", &app(""));
    assert_eq!(found, ["f: a does not listen on 8001"]);
}
