//! A machine that does not cooperate: full, read-only and damaged disks, slow and greedy clients.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use task_tests::process::{Connection, TaskServer, TaskServerOptions, TestDirectory, program};
use task_tests::wait::until;

use super::{create, problem};

/// Runs `serve` where it cannot work, and answers how it ended.
fn refused(data: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(program());
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data);
    command.args(more).output().unwrap()
}

fn assert_refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// A server in a mount namespace of its own, in which `setup` prepares `$1`.
fn in_namespace(data: &TestDirectory, setup: &str) -> TaskServerOptions {
    let script = format!("{setup}; shift; exec \"$@\"");
    let words = [
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-ec",
        &script,
        "sh",
    ];
    let mut before: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    before.push(data.path().display().to_string());
    TaskServerOptions {
        before,
        ..TaskServerOptions::default()
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let data = TestDirectory::new("full-disk");
    let options = in_namespace(&data, "mount -t tmpfs -o size=2m tmpfs \"$1\"");
    let server = TaskServer::start_with(data.path(), &options).await;
    let (first, _) = create(&server, "before").await;
    let mut kept = vec![first];
    let big = "x".repeat(50_000);
    let refusal = loop {
        let body = json!({ "title": "x", "description": big }).to_string();
        let answer = server.post("/tasks", &body).await;
        if answer.status != 201 {
            break answer;
        }
        kept.push(answer.json()["id"].as_str().unwrap().to_owned());
        assert!(kept.len() < 1000, "the disk does not fill");
    };
    problem(&refusal, 503);
    assert!(refusal.header("retry-after").is_some());
    until("it is said", async || {
        server.log().contains("disk is full").then_some(())
    })
    .await;
    for id in &kept {
        assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 200);
    }
    // Room comes back from outside, and so does the service, without a restart.
    let inside = format!("/proc/{}/root{}", server.id(), data.path().display());
    let grow = Command::new("nsenter")
        .args([
            "--target",
            &server.id().to_string(),
            "--mount",
            "--user",
            "--preserve-credentials",
        ])
        .args(["mount", "-o", "remount,size=64m"])
        .arg(data.path())
        .status()
        .unwrap();
    assert!(grow.success() && Path::new(&inside).exists());
    let (after, _) = until("it works again", async || {
        let answer = server.post("/tasks", r#"{"title":"after"}"#).await;
        let id = (answer.status == 201).then(|| answer.json()["id"].as_str().unwrap().to_owned());
        id.map(|id| (id, ()))
    })
    .await;
    kept.push(after);
    for id in &kept {
        assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 200);
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn a_read_only_directory_is_refused_by_name() {
    let data = TestDirectory::new("read-only");
    let setup = "mount --bind \"$1\" \"$1\"; mount -o remount,ro,bind \"$1\"";
    let words = in_namespace(&data, setup).before;
    let output = Command::new(&words[0])
        .args(&words[1..])
        .arg(program())
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    assert_refused(&output, &[&data.path().display().to_string(), "ead-only"]);
}

#[tokio::test]
async fn a_file_that_is_no_database_or_damaged_is_refused_and_left_alone() {
    let data = TestDirectory::new("damaged");
    let file = data.path().join("tasks.db");
    std::fs::write(
        &file,
        "these are not the bytes you are looking for ".repeat(200),
    )
    .unwrap();
    assert_refused(&refused(data.path(), &[]), &["tasks.db"]);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .starts_with("these are not")
    );

    std::fs::remove_file(&file).unwrap();
    let server = TaskServer::start(data.path()).await;
    for n in 0..50 {
        create(&server, &n.to_string()).await;
    }
    assert!(server.stop().success());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100..4096].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    assert_refused(&refused(data.path(), &[]), &["tasks.db", "damaged"]);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn damage_inside_the_file_is_an_error_and_no_panic() {
    let data = TestDirectory::new("inner-damage");
    let server = TaskServer::start(data.path()).await;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(create(&server, &n.to_string()).await.0);
    }
    assert!(server.stop().success());
    let file = data.path().join("tasks.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let page = 4096;
    for start in (page * 12..bytes.len()).step_by(page * 3) {
        let end = (start + page).min(bytes.len());
        bytes[start..end].fill(0x5a);
    }
    std::fs::write(&file, bytes).unwrap();
    let server = match TaskServer::try_start(data.path(), &TaskServerOptions::default()).await {
        Ok(server) => server,
        Err(log) => {
            // Refused at the start is right as well, if it says why.
            assert!(
                log.contains("damaged") && !log.contains("panicked"),
                "{log}"
            );
            return;
        }
    };
    let mut statuses = std::collections::BTreeMap::new();
    for id in ids {
        let answer = server.get(&format!("/tasks/{id}")).await;
        *statuses.entry(answer.status).or_insert(0) += 1;
    }
    assert!(statuses.contains_key(&500), "{statuses:?}");
    assert!(
        statuses.keys().all(|status| [200, 500].contains(status)),
        "{statuses:?}"
    );
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let data = TestDirectory::new("second-process");
    let server = TaskServer::start(data.path()).await;
    let directory = data.path().display().to_string();
    assert_refused(
        &refused(data.path(), &[]),
        &[&directory, "in use by another process", "--data-dir"],
    );
    create(&server, "still works").await;
    server.kill();
    drop(TaskServer::start(data.path()).await);
}

#[tokio::test]
async fn a_port_in_use_is_said_with_the_flag_that_helps() {
    let data = TestDirectory::new("port");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(program())
        .args(["serve", "--listen", &address, "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    assert_refused(&output, &[&address, "in use", "--listen"]);
}

#[tokio::test]
async fn a_body_of_a_gibibyte_is_refused_before_it_is_read() {
    let data = TestDirectory::new("big-body");
    let server = TaskServer::start(data.path()).await;
    let mut connection = server.connect().await;
    let head = "POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: 1073741824\r\n\r\n");
    connection.send_raw(announced.as_bytes()).await.unwrap();
    problem(&connection.read(false).await.unwrap(), 413);

    let mut connection = server.connect().await;
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    connection.send_raw(chunked.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0_usize;
    // The server may close while we still write: that is a refusal as well.
    while sent < 1 << 30 && connection.send_raw(chunk.as_bytes()).await.is_ok() {
        sent += 0x10000;
        if sent > 8 << 20 {
            break;
        }
    }
    if let Ok(answer) = connection.read(false).await {
        problem(&answer, 413);
    }
    assert!(sent < 1 << 30);
    create(&server, "still works").await;
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_holds_up_nobody() {
    let data = TestDirectory::new("slow-client");
    let options = TaskServerOptions::default()
        .arg("--header-timeout-ms")
        .arg("300")
        .arg("--request-timeout-ms")
        .arg("1000");
    let server = TaskServer::start_with(data.path(), &options).await;
    let mut slow_header = server.connect().await;
    slow_header.send_raw(b"GET /health HTT").await.unwrap();
    let mut slow_body = server.connect().await;
    let head = "POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    let begun = format!("{head}content-length: 20\r\n\r\n{{\"title\"");
    slow_body.send_raw(begun.as_bytes()).await.unwrap();
    let begin = Instant::now();
    create(&server, "meanwhile").await;
    slow_header.closed().await.unwrap();
    let cut_off = slow_body.read(false).await.unwrap();
    problem(&cut_off, 408);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn too_many_requests_are_shed_at_once_and_then_it_is_normal_again() {
    let data = TestDirectory::new("overload");
    let options = TaskServerOptions::default()
        .arg("--max-concurrency")
        .arg("4");
    let server = TaskServer::start_with(data.path(), &options).await;
    let head = "POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    let mut holding = Vec::new();
    for _ in 0..4 {
        let mut connection = server.connect().await;
        let begun = format!("{head}content-length: 13\r\nexpect: 100-continue\r\n\r\n");
        connection.send_raw(begun.as_bytes()).await.unwrap();
        // The handler asks for the body: the request has its place.
        assert_eq!(connection.read(true).await.unwrap().status, 100);
        holding.push(connection);
    }
    let shed = server.post("/tasks", r#"{"title":"x"}"#).await;
    problem(&shed, 503);
    assert_eq!(shed.header("retry-after"), Some("1"));
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.get("/ready").await.status, 200);
    for mut connection in holding {
        connection.send_raw(br#"{"title":"x"}"#).await.unwrap();
        assert_eq!(connection.read(false).await.unwrap().status, 201);
    }
    assert_eq!(server.post("/tasks", r#"{"title":"x"}"#).await.status, 201);
}

#[tokio::test]
async fn a_stop_finishes_what_was_accepted_and_refuses_the_rest() {
    let data = TestDirectory::new("stop");
    let server = TaskServer::start(data.path()).await;
    let mut begun = server.connect().await;
    let head = "POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    begun
        .send_raw(format!("{head}content-length: 13\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    let (id, _) = create(&server, "before").await;
    server.terminate();
    until("it stops listening", async || {
        Connection::open(server.address())
            .await
            .is_err()
            .then_some(())
    })
    .await;
    begun.send_raw(br#""title":"x"}"#).await.unwrap();
    let accepted = begun.read(false).await.unwrap();
    assert_eq!(accepted.status, 201);
    assert!(server.wait().success());
    let server = TaskServer::start(data.path()).await;
    for target in [
        format!("/tasks/{id}"),
        accepted.header("location").unwrap().to_owned(),
    ] {
        assert_eq!(server.get(&target).await.status, 200);
    }
}

#[tokio::test]
async fn a_stopping_service_says_that_it_is_not_ready_and_serves_until_the_grace_is_over() {
    let data = TestDirectory::new("grace");
    let options = TaskServerOptions::default()
        .arg("--shutdown-grace-ms")
        .arg("60000");
    let server = TaskServer::start_with(data.path(), &options).await;
    assert_eq!(server.get("/ready").await.status, 200);
    server.terminate();
    until("it is not ready", async || {
        (server.get("/ready").await.status == 503).then_some(())
    })
    .await;
    create(&server, "late").await;
    // A second signal ends the wait.
    server.terminate();
    assert_eq!(server.wait().code(), Some(130));
}

#[tokio::test]
async fn an_answer_does_not_wait_for_what_comes_behind_its_request() {
    let data = TestDirectory::new("pipelined");
    let server = TaskServer::start(data.path()).await;
    let post = "POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
                content-length: 13\r\n\r\n{\"title\":\"x\"}";
    for behind in ["\r\n", "GET /hea", "GARBAGE\r\n\r\n"] {
        let mut connection = server.connect().await;
        let both = format!("{post}{behind}");
        connection.send_raw(both.as_bytes()).await.unwrap();
        let begin = Instant::now();
        assert_eq!(
            connection.read(false).await.unwrap().status,
            201,
            "before {behind:?}"
        );
        // Far below the ten seconds after which the server would close a silent connection.
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "before {behind:?}"
        );
    }
    let mut connection = server.connect().await;
    connection.send_raw(b"GARBAGE\r\n\r\n").await.unwrap();
    assert_eq!(connection.read(false).await.unwrap().status, 400);
}

#[tokio::test]
async fn slow_bodies_keep_nobody_from_reading() {
    let data = TestDirectory::new("slow-bodies");
    let options = TaskServerOptions::default()
        .arg("--max-concurrency")
        .arg("4");
    let server = TaskServer::start_with(data.path(), &options).await;
    let (id, _) = create(&server, "x").await;
    let head = "POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut connection = server.connect().await;
        let begun = format!("{head}content-length: 20\r\nexpect: 100-continue\r\n\r\n");
        connection.send_raw(begun.as_bytes()).await.unwrap();
        assert_eq!(connection.read(true).await.unwrap().status, 100);
        slow.push(connection);
    }
    problem(&server.post("/tasks", r#"{"title":"y"}"#).await, 503);
    assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 200);
    let change = format!("/tasks/{id}/status?status=completed");
    assert_eq!(server.send("PUT", &change, &[], "").await.status, 200);
}

#[tokio::test]
async fn garbage_on_the_wire_is_refused_and_harms_nobody() {
    let data = TestDirectory::new("garbage");
    let server = TaskServer::start(data.path()).await;
    let garbage: [&[u8]; 6] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-length: -5\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /tasks HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    let server = &server;
    let attempts = garbage.map(|bytes| async move {
        let mut connection = server.connect().await;
        connection.send_raw(bytes).await.unwrap();
        if let Ok(answer) = connection.read(false).await {
            assert!(
                (400..600).contains(&answer.status),
                "{bytes:?}: {}",
                answer.status
            );
        }
    });
    join_all(attempts).await;
    create(server, "still works").await;
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
