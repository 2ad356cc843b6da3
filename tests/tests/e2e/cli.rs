//! The command line: messages, exit codes, configuration.

use std::process::{Command, Output};

use serde_json::Value;
use task_tests::process::{TaskServer, TaskServerOptions, TestDirectory, program};

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn all_problems_of_a_configuration_are_listed_at_once() {
    let directory = TestDirectory::new("bad-config");
    let file = directory.path().join("task.toml");
    std::fs::write(
        &file,
        "listen = \"nowhere\"\nmax_body_bytes = 1\nlisten_on = 3\n",
    )
    .unwrap();
    let path = file.display().to_string();
    for arguments in [
        vec!["config", "check", "--config", &path, "--log", "loud"],
        vec!["serve", "--config", &path, "--log", "loud"],
    ] {
        let output = run(&arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for word in [
            "listen",
            "nowhere",
            "max_body_bytes",
            "1",
            "listen_on",
            "loud",
        ] {
            assert!(stderr.contains(word), "{word} is not in {stderr}");
        }
    }
}

#[test]
fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let directory = TestDirectory::new("precedence");
    let file = directory.path().join("task.toml");
    let keys = "max_body_bytes = 2000\nmax_concurrency = 20\nmax_connections = 200\n";
    std::fs::write(&file, keys).unwrap();
    let output = Command::new(program())
        .args([
            "config",
            "show",
            "--json",
            "--max-connections",
            "222",
            "--config",
        ])
        .arg(&file)
        .env("TASK_MAX_CONCURRENCY", "22")
        .env("TASK_MAX_CONNECTIONS", "2")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let _: Value = serde_json::from_str(&shown).unwrap();
    for (key, value) in [
        ("max_body_bytes", "2000"),
        ("max_concurrency", "22"),
        ("max_connections", "222"),
    ] {
        assert!(
            shown.contains(key) && shown.contains(value),
            "{key} {value} is not in {shown}"
        );
    }
}

#[test]
fn a_backend_that_cannot_be_had_is_refused_with_the_reason() {
    for (backend, problem) in [
        (
            "parallel",
            "old (default): must be set with the backend parallel",
        ),
        ("nosuch", "must be one of embedded, direct, dapr, parallel"),
        ("direct", "notification_url"),
    ] {
        let output = run(&["serve", "--backend", backend]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(problem), "{stderr}");
    }
}

#[test]
fn what_serve_would_refuse_is_found_by_the_check() {
    for arguments in [
        ["--backend", "parallel"],
        ["--notification-url", "http://me:pw@a"],
        ["--notification-url", "http://a:99999"],
    ] {
        let output = run(&[&["config", "check"][..], &arguments].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output.stdout)
        );
    }
}

#[test]
fn what_every_adapter_refuses_is_listed_at_once_by_key() {
    let wrong = [
        ["--backend", "direct"],
        ["--redis-url", "rediss://service@127.0.0.1:1"],
        ["--redis-ca-file", "no-such-redis.pem"],
        ["--redis-key-file", "no-such-redis.key"],
        ["--redis-key-prefix", "a||b"],
        ["--kafka-brokers", "127.0.0.1"],
        ["--kafka-security", "tls"],
        ["--kafka-ca-file", "no-such-kafka.pem"],
        ["--max-connections", "0"],
    ];
    let expected = [
        "redis_password_secret (default): must be set",
        "redis_ca_file (flag): cannot use no-such-redis.pem",
        "redis_key_file (flag): needs redis_certificate_file",
        "redis_key_prefix (flag): must be 1 to 128 bytes without a bar, it is \"a||b\"",
        "kafka_brokers (flag): must be host:port",
        "kafka_ca_file (flag): cannot use no-such-kafka.pem",
        "max_connections (flag): must be an integer of 1 to 1000000, not \"0\"",
        "notification_url (default): must be set with the backend direct",
        "the configuration has 8 problems",
    ];
    for command in [&["config", "check"][..], &["serve"]] {
        let output = run(&[command, wrong.as_flattened()].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for problem in expected {
            assert!(stderr.contains(problem), "{problem} is not in {stderr}");
        }
    }
    // The password is named and not read: whether it is there is seen at the start.
    let right = [
        ["--backend", "direct"],
        ["--redis-url", "redis://service@127.0.0.1:1"],
        ["--redis-password-secret", "redis/password"],
        ["--notification-url", "http://127.0.0.1:1"],
    ];
    let output = run(&[&["config", "check"], right.as_flattened()].concat());
    assert_eq!(text(&output.stdout), "ok\n", "{}", text(&output.stderr));
}

#[test]
fn a_wrong_word_is_a_usage_error() {
    let output = run(&["sevre"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
}

#[test]
fn the_api_description_is_printed() {
    let output = run(&["openapi"]);
    assert!(output.status.success());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["paths"]["/tasks"]["post"].is_object());
}

#[test]
fn secrets_in_addresses_are_masked() {
    let url = "http://user:canary-7f3a@127.0.0.1:1/x";
    for arguments in [
        vec!["config", "show", "--notification-url", url],
        vec!["config", "show", "--json", "--notification-url", url],
        vec!["config", "check", "--notification-url", url],
    ] {
        let output = run(&arguments);
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(!all.contains("canary-7f3a"), "{all}");
    }
}

#[test]
fn a_secret_of_the_environment_is_in_no_output() {
    let directory = TestDirectory::new("secret-variable");
    let data = directory.path().display().to_string();
    for (arguments, code) in [
        (&["config", "show"][..], 0),
        (&["config", "show", "--json"], 0),
        (&["config", "check"], 0),
        (&["config", "check", "--secrets", "vault"], 2),
        (&["serve", "--data-dir", &data, "--listen", "nowhere"], 2),
    ] {
        let mut command = Command::new(program());
        command.args(arguments).env("TASK_LOG", "trace");
        command.env("TASK_SECRET_REDIS__PASSWORD", "canary-7f3a");
        let output = command.output().unwrap();
        let all = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
        assert!(!all.contains("canary"), "{all}");
    }
}

/// What the server says at its loudest, from its start to a task.
#[tokio::test]
async fn a_secret_of_the_environment_is_in_no_log_line() {
    let directory = TestDirectory::new("secret-log");
    let options = TaskServerOptions {
        before: vec![
            "env".to_owned(),
            "TASK_SECRET_REDIS__PASSWORD=canary-7f3a".to_owned(),
        ],
        arguments: vec!["--log".to_owned(), "trace".to_owned()],
        ..TaskServerOptions::default()
    };
    let server = TaskServer::start_with(directory.path(), &options).await;
    crate::create(&server, "write the report").await;
    let log = server.log();
    server.stop();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn a_stop_is_told_in_two_lines() {
    let directory = TestDirectory::new("stop");
    let options = TaskServerOptions::default();
    let starting = TaskServer::begin(directory.path(), &options);
    task_tests::wait::until("it serves", async || {
        starting.log().contains("Stop with").then_some(())
    })
    .await;
    starting.terminate();
    let (status, log) = starting.wait();
    assert!(status.success(), "{log}");
    let told: Vec<&str> = log.lines().filter(|line| line.contains("INFO")).collect();
    assert_eq!(told.len(), 2, "{log}");
    assert!(
        told[0].contains("stopping: not ready, draining 0 requests"),
        "{log}"
    );
    assert!(told[1].ends_with("stopped"), "{log}");
}

#[test]
fn completions_are_printed_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("task-server"));
    }
}
