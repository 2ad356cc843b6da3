//! Every row of the Task API's table: exact status, headers and body.

use serde_json::{Value, json};
use task_tests::process::{TaskServer, TestDirectory};

use super::{create, problem};

struct Api {
    server: TaskServer,
    _data: TestDirectory,
}

async fn api() -> Api {
    let data = TestDirectory::new("contract");
    Api {
        server: TaskServer::start(data.path()).await,
        _data: data,
    }
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn create_answers_201_with_the_task_its_location_and_its_tag() {
    let api = api().await;
    let body = r#"{"title":"write it","description":"two pages","priority":3}"#;
    let created = api.server.post("/tasks", body).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("content-type"), Some("application/json"));
    let task = created.json();
    let id = task["id"].as_str().unwrap();
    assert_eq!(
        created.header("location"),
        Some(format!("/tasks/{id}").as_str())
    );
    let tag = created.header("etag").unwrap();
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
        "{tag}"
    );
    let at = task["created_at"].as_str().unwrap();
    assert_eq!(at.len(), "2026-11-21T02:08:47.911595Z".len());
    assert!(at.ends_with('Z'));
    let expected = format!(
        concat!(
            r#"{{"id":"{id}","title":"write it","description":"two pages","status":"pending","#,
            r#""priority":3,"created_at":"{at}","updated_at":"{at}"}}"#
        ),
        id = id,
        at = at
    );
    assert_eq!(created.text(), expected);
}

#[tokio::test]
async fn create_fills_in_what_may_be_left_out_and_ignores_what_it_does_not_know() {
    let api = api().await;
    let body = r#"{"title":"x","id":"mine","created_at":"1999-01-01T00:00:00Z","status":"completed","_meta":{"rev":9}}"#;
    let task = api.server.post("/tasks", body).await.json();
    assert_eq!(task["description"], Value::Null);
    assert_eq!(task["priority"], 1);
    assert_eq!(task["status"], "pending");
    assert_ne!(task["id"], "mine");
    assert!(!task["created_at"].as_str().unwrap().starts_with("1999"));
}

#[tokio::test]
async fn create_names_all_problems_at_once() {
    let api = api().await;
    let rows = [
        (json!({}), vec!["/title"]),
        (json!({"title": ""}), vec!["/title"]),
        (json!({"title": "x".repeat(201)}), vec!["/title"]),
        (
            json!({"title": 7, "description": 7, "priority": "high"}),
            vec!["/title", "/description", "/priority"],
        ),
        (json!({"title": "x", "priority": 0}), vec!["/priority"]),
        (json!({"title": "x", "priority": 6}), vec!["/priority"]),
        (json!({"title": "x", "priority": 1.5}), vec!["/priority"]),
        (json!({"title": "x", "priority": null}), vec!["/priority"]),
        (
            json!({"title": null, "priority": 99}),
            vec!["/title", "/priority"],
        ),
    ];
    for (body, expected) in rows {
        let answer = api.server.post("/tasks", &body.to_string()).await;
        assert_eq!(pointers(&problem(&answer, 422)), expected, "{body}");
    }
    let long = api
        .server
        .post("/tasks", &json!({"title": "é".repeat(201)}).to_string())
        .await;
    assert!(
        long.text().contains("200") && long.text().contains("201"),
        "{}",
        long.text()
    );
    let fits = api
        .server
        .post("/tasks", &json!({"title": "é".repeat(200)}).to_string())
        .await;
    assert_eq!(fits.status, 201);
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_by_its_kind() {
    let api = api().await;
    for malformed in ["{", "{\"title\":}", "\"\\ud800\"x", "nope"] {
        problem(&api.server.post("/tasks", malformed).await, 400);
    }
    for other in ["[]", "7", "null", "\"text\""] {
        problem(&api.server.post("/tasks", other).await, 422);
    }
    let text = [("content-type", "text/plain")];
    let wrong = api
        .server
        .send("POST", "/tasks", &text, r#"{"title":"x"}"#)
        .await;
    problem(&wrong, 415);
    let charset = [("content-type", "application/json; charset=utf-8")];
    let right = api
        .server
        .send("POST", "/tasks", &charset, r#"{"title":"x"}"#)
        .await;
    assert_eq!(right.status, 201);
}

#[tokio::test]
async fn get_answers_200_304_or_404() {
    let api = api().await;
    let (id, tag) = create(&api.server, "x").await;
    let target = format!("/tasks/{id}");
    let got = api.server.get(&target).await;
    assert_eq!((got.status, got.header("etag")), (200, Some(tag.as_str())));
    assert_eq!(got.json()["id"], id.as_str());
    let weak = format!("\"other\", W/{tag}");
    for same in [tag.as_str(), weak.as_str(), "*"] {
        let headers = [("if-none-match", same)];
        let unchanged = api.server.send("GET", &target, &headers, "").await;
        assert_eq!(unchanged.status, 304, "{same}");
        assert_eq!(unchanged.header("etag"), Some(tag.as_str()));
        assert!(unchanged.body.is_empty());
    }
    let headers = [("if-none-match", "\"other\"")];
    assert_eq!(
        api.server.send("GET", &target, &headers, "").await.status,
        200
    );
    for nobody in ["/tasks/nobody", "/tasks/%F0%9F%98%80", "/tasks/a%7C%7Cb"] {
        let missing = problem(&api.server.get(nobody).await, 404);
        assert_eq!(missing["detail"], "Task not found");
    }
}

#[tokio::test]
async fn the_status_changes_with_a_new_tag_and_stays_without_one() {
    let api = api().await;
    let (id, first) = create(&api.server, "x").await;
    let to = |status: &str| format!("/tasks/{id}/status?status={status}");
    let changed = api.server.send("PUT", &to("in_progress"), &[], "").await;
    assert_eq!(
        (changed.status, changed.json()["status"].clone()),
        (200, json!("in_progress"))
    );
    let second = changed.header("etag").unwrap();
    assert_ne!(second, first);
    let same = api.server.send("PUT", &to("in_progress"), &[], "").await;
    assert_eq!((same.status, same.header("etag")), (200, Some(second)));
    assert_eq!(same.body, changed.body);

    let stale = [("if-match", first.as_str())];
    let refused = api.server.send("PUT", &to("completed"), &stale, "").await;
    problem(&refused, 412);
    let current = [("if-match", second)];
    let done = api.server.send("PUT", &to("completed"), &current, "").await;
    assert_eq!(
        (done.status, done.json()["status"].clone()),
        (200, json!("completed"))
    );

    for bad in ["", "?status=", "?status=done", "?other=1"] {
        let answer = api
            .server
            .send("PUT", &format!("/tasks/{id}/status{bad}"), &[], "")
            .await;
        assert_eq!(pointers(&problem(&answer, 422)), ["/status"], "{bad}");
    }
    let nobody = api
        .server
        .send("PUT", "/tasks/nobody/status?status=pending", &stale, "")
        .await;
    assert_eq!(problem(&nobody, 404)["detail"], "Task not found");
}

#[tokio::test]
async fn an_edit_replaces_what_a_client_may_edit() {
    let api = api().await;
    let body = r#"{"title":"a","description":"b","priority":5}"#;
    let created = api.server.post("/tasks", body).await;
    let target = created.header("location").unwrap().to_owned();
    let edited = api
        .server
        .send("PUT", &target, &[], r#"{"title":"c"}"#)
        .await;
    let task = edited.json();
    assert_eq!(edited.status, 200);
    assert_eq!(
        (&task["title"], &task["priority"]),
        (&json!("c"), &json!(1))
    );
    assert_eq!(task["description"], Value::Null);
    assert_eq!(task["created_at"], created.json()["created_at"]);
    assert_ne!(edited.header("etag"), created.header("etag"));
    let stale = [("if-match", created.header("etag").unwrap())];
    problem(
        &api.server
            .send("PUT", &target, &stale, r#"{"title":"d"}"#)
            .await,
        412,
    );
    let invalid = api
        .server
        .send("PUT", &target, &[], r#"{"priority":9}"#)
        .await;
    assert_eq!(pointers(&problem(&invalid, 422)), ["/title", "/priority"]);
    problem(
        &api.server
            .send("PUT", "/tasks/nobody", &[], r#"{"title":"d"}"#)
            .await,
        404,
    );
}

#[tokio::test]
async fn a_deletion_is_conditional_and_final() {
    let api = api().await;
    let (id, tag) = create(&api.server, "x").await;
    let target = format!("/tasks/{id}");
    let stale = [("if-match", "\"9.9\"")];
    problem(&api.server.send("DELETE", &target, &stale, "").await, 412);
    let current = [("if-match", tag.as_str())];
    let deleted = api.server.send("DELETE", &target, &current, "").await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    problem(&api.server.send("DELETE", &target, &[], "").await, 404);
    problem(&api.server.get(&target).await, 404);
    problem(
        &api.server
            .send("PUT", &target, &[], r#"{"title":"x"}"#)
            .await,
        404,
    );
}

#[tokio::test]
async fn if_match_follows_rfc_9110() {
    let api = api().await;
    let (id, tag) = create(&api.server, "x").await;
    let target = format!("/tasks/{id}");
    let put = async |value: &str, title: &str| {
        let body = json!({ "title": title }).to_string();
        let headers = [("if-match", value)];
        api.server
            .send("PUT", &target, &headers, &body)
            .await
            .status
    };
    assert_eq!(put(&format!("W/{tag}"), "weak").await, 412);
    assert_eq!(put("no quotes", "malformed").await, 400);
    assert_eq!(put("*", "any").await, 200);
    assert_eq!(put(&tag, "stale").await, 412);
    let now = api
        .server
        .get(&target)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    assert_eq!(
        put(&format!("\"a\", {now}, \"b\""), "one of a list").await,
        200
    );
}

#[tokio::test]
async fn a_repeated_create_is_answered_alike_and_made_once() {
    let api = api().await;
    let key = [("idempotency-key", "order-7")];
    let first = api
        .server
        .send("POST", "/tasks", &key, r#"{"title":"x"}"#)
        .await;
    assert_eq!(first.status, 201);
    let target = first.header("location").unwrap().to_owned();
    let done = api
        .server
        .send("PUT", &format!("{target}/status?status=completed"), &[], "")
        .await;
    assert_eq!(done.status, 200);
    let again = api
        .server
        .send("POST", "/tasks", &key, r#"{ "title" : "x" }"#)
        .await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    for header in ["location", "etag", "content-type"] {
        assert_eq!(again.header(header), first.header(header));
    }
    problem(
        &api.server
            .send("POST", "/tasks", &key, r#"{"title":"y"}"#)
            .await,
        422,
    );
    let long = "k".repeat(256);
    let bad = api
        .server
        .send(
            "POST",
            "/tasks",
            &[("idempotency-key", &long)],
            r#"{"title":"x"}"#,
        )
        .await;
    let detail = problem(&bad, 400)["detail"].to_string();
    assert!(detail.contains("255") && detail.contains("256"), "{detail}");
}

#[tokio::test]
async fn a_key_of_a_deleted_task_does_not_bring_it_back() {
    let api = api().await;
    let key = [("idempotency-key", "order-8")];
    let first = api
        .server
        .send("POST", "/tasks", &key, r#"{"title":"x"}"#)
        .await;
    let target = first.header("location").unwrap();
    assert_eq!(api.server.send("DELETE", target, &[], "").await.status, 204);
    problem(
        &api.server
            .send("POST", "/tasks", &key, r#"{"title":"x"}"#)
            .await,
        409,
    );
    problem(&api.server.get(target).await, 404);
}

#[tokio::test]
async fn health_is_liveness_and_ready_names_each_dependency() {
    let api = api().await;
    let health = api.server.get("/health").await;
    assert_eq!(
        (health.status, health.text()),
        (200, r#"{"status":"healthy"}"#.to_owned())
    );
    let ready = api.server.get("/ready").await;
    assert_eq!(ready.status, 200);
    let body = ready.json();
    for dependency in ["state_store", "event_bus", "notifier"] {
        assert_eq!(body["dependencies"][dependency]["status"], "up", "{body}");
    }
}

#[tokio::test]
async fn there_is_no_list_route_and_unknown_ones_are_problems() {
    let api = api().await;
    let list = api.server.get("/tasks").await;
    problem(&list, 405);
    assert_eq!(list.header("allow"), Some("POST"));
    problem(&api.server.get("/nowhere").await, 404);
    let (id, _) = create(&api.server, "x").await;
    let patched = api
        .server
        .send("PATCH", &format!("/tasks/{id}"), &[], "{}")
        .await;
    problem(&patched, 405);
    let allow = patched.header("allow").unwrap();
    assert!(
        ["GET", "PUT", "DELETE"].iter().all(|m| allow.contains(m)),
        "{allow}"
    );
}

#[tokio::test]
async fn the_api_description_is_served_and_names_every_route() {
    let api = api().await;
    let served = api.server.get("/openapi.json").await;
    assert_eq!(served.status, 200);
    let document = served.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let rows = [
        ("/tasks", "post"),
        ("/tasks/{id}", "get"),
        ("/tasks/{id}", "put"),
        ("/tasks/{id}", "delete"),
        ("/tasks/{id}/status", "put"),
        ("/health", "get"),
        ("/ready", "get"),
    ];
    for (path, method) in rows {
        assert!(
            document["paths"][path][method].is_object(),
            "{method} {path}"
        );
    }
}
