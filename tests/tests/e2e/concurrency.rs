//! Many clients on one task.

use futures_util::future::join_all;
use serde_json::json;
use task_tests::process::{TaskServer, TestDirectory};

use super::create;

const WRITERS: usize = 64;

#[tokio::test]
async fn of_64_writers_with_one_tag_exactly_one_wins_each_revision() {
    let data = TestDirectory::new("one-winner");
    let server = TaskServer::start(data.path()).await;
    let (id, mut tag) = create(&server, "0").await;
    let target = format!("/tasks/{id}");
    for round in 0..20 {
        let attempts = (0..WRITERS).map(|writer| {
            let body = json!({ "title": format!("{round} by {writer}") }).to_string();
            let (server, target, tag) = (&server, &target, tag.clone());
            async move {
                let headers = [("if-match", tag.as_str())];
                server.send("PUT", target, &headers, &body).await
            }
        });
        let answers = join_all(attempts).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
        assert_eq!(won.len(), 1, "round {round}");
        assert!(lost.iter().all(|answer| answer.status == 412));
        let now = server.get(&target).await;
        assert_eq!(now.body, won[0].body);
        tag = won[0].header("etag").unwrap().to_owned();
    }
}

#[tokio::test]
async fn of_64_writers_without_a_tag_none_is_lost() {
    let data = TestDirectory::new("no-lost-update");
    let server = TaskServer::start(data.path()).await;
    let (id, _) = create(&server, "0").await;
    let target = format!("/tasks/{id}");
    let attempts = (0..WRITERS).map(|writer| {
        let (server, target) = (&server, &target);
        async move {
            let mut tags = Vec::new();
            for n in 0..10 {
                let body = json!({ "title": format!("{writer} {n}") }).to_string();
                let answer = server.send("PUT", target, &[], &body).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                tags.push(answer.header("etag").unwrap().to_owned());
            }
            tags
        }
    });
    let mut tags: Vec<String> = join_all(attempts).await.into_iter().flatten().collect();
    tags.sort();
    tags.dedup();
    // Every accepted change has a revision of its own: none was written over another one's base.
    assert_eq!(tags.len(), WRITERS * 10);
    let last = server.get(&target).await.header("etag").unwrap().to_owned();
    assert_eq!(last, format!("\"0.{}\"", 1 + WRITERS * 10));
}

#[tokio::test]
async fn of_64_creates_with_one_key_one_task_comes() {
    let data = TestDirectory::new("one-task");
    let server = TaskServer::start(data.path()).await;
    let attempts = (0..WRITERS).map(|_| {
        server.send(
            "POST",
            "/tasks",
            &[("idempotency-key", "k")],
            r#"{"title":"x"}"#,
        )
    });
    let answers = join_all(attempts).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (201, &answers[0].body));
    }
}
