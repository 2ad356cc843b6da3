//! A completed task is notified once, however often its completion is delivered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use task_tests::process::RedisServer;
use task_tests::process::dapr::{Component, Neighbours, everything_taken, published, self_hosted};
use task_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const TOPIC: &str = "task-events";

async fn publish(world: &Neighbours, event: &serde_json::Value) {
    let path = format!("/v1.0/publish/pubsub/{TOPIC}");
    let envelope = [("content-type", "application/cloudevents+json")];
    let answer = world
        .ours
        .send("POST", &path, &envelope, &event.to_string())
        .await;
    assert_eq!(answer.status, 204, "{}", answer.text());
}

#[tokio::test]
async fn an_event_that_is_published_twice_is_notified_once() {
    let redis = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(redis.port())).await;
    let _server = world.serve().await;
    let event = |id: &str, task: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": "task-api", "type": "task.completed", "subject": task,
            "datacontenttype": "application/json",
            "data": {
                "event_type": "task.completed", "task_id": task, "title": "twice", "status": "completed",
                "timestamp": "2099-11-21T02:08:47.911595",
            },
        })
    };
    for _ in 0..3 {
        publish(&world, &event("e-1", "t-1")).await;
    }
    publish(&world, &event("e-2", "t-2")).await;
    until("the last one is notified", async || {
        (world.notified("t-2").await > 0).then_some(())
    })
    .await;
    everything_taken(&redis, TOPIC).await;
    assert_eq!(published(&redis, TOPIC).await.len(), 4);
    assert_eq!(world.notified("t-1").await, 1);
    assert_eq!(world.notified("t-2").await, 1);
}

/// A way to the receiver on which its answers are held up.
#[derive(Debug, Clone)]
struct Way {
    /// Notifications that went in.
    asked: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
}

impl Way {
    fn to(receiver: SocketAddr) -> (Self, u16) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Self {
            asked: Arc::default(),
            open: watch::channel(true).0,
        };
        let listener = TcpListener::from_std(listener).unwrap();
        let accepting = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().carry(client, receiver));
            }
        });
        (way, port)
    }

    async fn carry(self, client: TcpStream, receiver: SocketAddr) {
        let Ok(server) = TcpStream::connect(receiver).await else {
            return;
        };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let mut open = self.open.subscribe();
        let forth = async {
            let mut bytes = Vec::new();
            while from_client.read_buf(&mut bytes).await? > 0 {
                let notifies = bytes.starts_with(b"POST /notify");
                self.asked
                    .fetch_add(usize::from(notifies), Ordering::SeqCst);
                to_server.write_all(&bytes).await?;
                bytes.clear();
            }
            Ok::<_, std::io::Error>(())
        };
        let back = async {
            let mut bytes = Vec::new();
            while from_server.read_buf(&mut bytes).await? > 0 {
                // What the receiver says stays here until the way is open.
                let _ = open.wait_for(|open| *open).await;
                to_client.write_all(&bytes).await?;
                bytes.clear();
            }
            Ok::<_, std::io::Error>(())
        };
        // Whichever side ends, both connections do.
        tokio::select! {
            _ = forth => {}
            _ = back => {}
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_dies_between_the_receivers_answer_and_the_acknowledgement_doubles_nothing()
{
    let redis = RedisServer::start().await;
    let mut ways = Vec::new();
    // What the crash leaves behind is to come again soon.
    let resources = self_hosted(redis.port()).into_iter();
    let resources = resources.filter(|text| !text.contains("pubsub.redis"));
    let bus = Component::redis_pubsub("pubsub", &redis.url())
        .with("processingTimeout", "1000")
        .with("redeliverInterval", "500");
    let resources: Vec<String> = resources.chain([bus.to_string()]).collect();
    let mut world = Neighbours::start_with(resources, "", |receiver| {
        let (way, port) = Way::to(receiver);
        ways.push(way);
        port
    })
    .await;
    let way = ways.remove(0);
    let server = world.serve().await;
    let created = server.post("/tasks", r#"{"title":"once"}"#).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    way.open.send_replace(false);
    let target = format!("/tasks/{id}/status?status=completed");
    assert_eq!(server.send("PUT", &target, &[], "").await.status, 200);
    until("the receiver has it", async || {
        (world.notified(&id).await == 1).then_some(())
    })
    .await;
    // It has answered; nobody has heard it.
    world.ours.kill();
    let before = way.asked.load(Ordering::SeqCst);
    way.open.send_replace(true);
    world.ours.restart().await;
    until("it is notified again", async || {
        (way.asked.load(Ordering::SeqCst) > before).then_some(())
    })
    .await;
    until("the service has an answer", async || {
        let line = format!("Notification sent for task {id}");
        server.log().contains(&line).then_some(())
    })
    .await;
    everything_taken(&redis, TOPIC).await;
    assert_eq!(world.notified(&id).await, 1);
}
