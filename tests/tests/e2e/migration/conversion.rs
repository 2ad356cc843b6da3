//! Legacy strings become Dapr's hashes and strings again, by two commands.

use serde_json::Value;
use task_tests::process::migration::migration_at;
use task_tests::process::{
    NotificationService, Python, RedisServer, TaskServer, TaskServerOptions, TestDirectory,
};

use super::super::create;

/// Nobody has to be there: these commands work on Redis themselves.
const NOBODY: &str = "http://127.0.0.1:1";

struct World {
    directory: TestDirectory,
    receiver: NotificationService,
    url: String,
}

impl World {
    async fn serve(&self, layout: &str) -> TaskServer {
        let receiver = format!("http://{}", self.receiver.address());
        let words = [
            "--backend",
            "direct",
            "--redis-url",
            &self.url,
            "--redis-layout",
            layout,
            "--bus",
            "redis-streams",
            "--notification-url",
            &receiver,
        ];
        let options = TaskServerOptions {
            arguments: words.map(str::to_owned).into(),
            ..TaskServerOptions::default()
        };
        TaskServer::start_with(self.directory.path(), &options).await
    }
}

#[tokio::test]
async fn a_redis_changes_its_layout_and_back_with_tasks_tags_and_deletions() {
    let world = World {
        directory: TestDirectory::new("conversion"),
        receiver: NotificationService::start("127.0.0.1:0"),
        url: RedisServer::shared().await.next_database_url(),
    };
    let convert = format!("convert --redis-url {}", world.url);
    let back = format!("convert-back --json --redis-url {}", world.url);
    let server = world.serve("legacy").await;
    let (kept, tag) = create(&server, "kept").await;
    let key = [("idempotency-key", "deleted-1")];
    let body = r#"{"title":"deleted"}"#;
    let gone = server.send("POST", "/tasks", &key, body).await.json();
    let gone = format!("/tasks/{}", gone["id"].as_str().unwrap());
    assert_eq!(server.send("DELETE", &gone, &[], "").await.status, 204);

    // A service that runs would take what is converted for missing.
    let refused = migration_at(NOBODY, &convert).await;
    refused.with(2);
    assert!(
        refused
            .stderr
            .contains("a service works on the layout legacy"),
        "{}",
        refused.stderr
    );
    assert!(server.stop().success());
    let said = migration_at(NOBODY, &convert).await;
    assert!(
        said.with(0).contains("--redis-layout dapr"),
        "{}",
        said.stdout
    );

    for layout in ["dapr", "legacy"] {
        let server = world.serve(layout).await;
        let read = server.get(&format!("/tasks/{kept}")).await;
        assert_eq!(read.json()["title"], "kept", "{layout}");
        assert_eq!(read.header("etag"), Some(tag.as_str()), "{layout}");
        // A deletion is final, in whichever form it is remembered.
        let again = server.send("POST", "/tasks", &key, body).await;
        assert_eq!(again.status, 409, "{layout}: {}", again.text());
        assert!(server.stop().success());
        if layout == "dapr" {
            let said = migration_at(NOBODY, &back).await;
            said.with(0);
            assert_eq!(said.json()["conflicts"], 0, "{}", said.stdout);
        }
    }
    let read = [world.url.as_str(), "read", &kept];
    let read = Python::shared().await.run("redis_task.py", &read).await;
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read["title"], "kept");
}
