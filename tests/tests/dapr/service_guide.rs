//! The worked example of `server/MIGRATION.md`, followed word by word on real servers, with its traffic running.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use task_tests::process::dapr::{Neighbours, self_hosted};
use task_tests::process::migration::{migration, stages};
use task_tests::process::{NotificationService, RedisServer, TaskServer, TaskServerOptions};
use task_tests::wait::until;

const GUIDE: &str = include_str!("../../../server/MIGRATION.md");

/// Pause between two tasks of the guide's loop.
const PACE: Duration = Duration::from_millis(50);

/// What the guide shows of a command: its words, and the lines that it prints.
#[derive(Debug)]
struct Shown {
    words: &'static str,
    prints: Vec<&'static str>,
}

/// The lines of the example's blocks in a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let example = GUIDE.split("\n## ").nth(1).unwrap();
    assert!(example.starts_with("Ten minutes"), "{example}");
    let fence = format!("```{language}\n");
    let blocks = example.split(&*fence).skip(1);
    blocks
        .map(|text| text.split("```").next().unwrap())
        .collect()
}

/// The commands of a block, as typed in one terminal.
fn typed(block: &'static str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for line in block.lines() {
        match (
            line.strip_prefix("$ task-server migration "),
            all.last_mut(),
        ) {
            (Some(words), _) => all.push(Shown {
                words,
                prints: Vec::new(),
            }),
            (None, Some(shown)) => shown.prints.push(line),
            (None, None) => panic!("{line:?} is printed by no command"),
        }
    }
    all
}

/// The arguments of the guide's `task-server serve` for a backend, at the addresses of this test.
fn serve(backend: &str, addresses: &[(&str, String)]) -> Vec<String> {
    let shell = blocks("sh").concat().replace("\\\n", " ");
    let mut lines = shell.lines().map(str::trim);
    let begin = format!("task-server serve --backend {backend} ");
    let line = lines.find_map(|line| line.find(&*begin).map(|place| &line[place..]));
    let mut words = line.unwrap().replace("task-server serve", "");
    for (shown, here) in addresses {
        assert!(words.contains(shown), "{shown} is not in {words}");
        words = words.replace(shown, here);
    }
    let words = words.split_whitespace().map(str::to_owned);
    words
        .chain(["--admin-listen", "127.0.0.1:0"].map(str::to_owned))
        .collect()
}

/// Numbers depend on the traffic.
fn without_numbers(line: &str) -> String {
    let mut masked = String::new();
    for character in line.chars() {
        match character {
            '0'..='9' if masked.ends_with('#') => {}
            '0'..='9' => masked.push('#'),
            other => masked.push(other),
        }
    }
    masked
}

/// Types a command, and a look until it shows what the guide shows: a write may be under way.
async fn follow(server: &TaskServer, shown: &Shown) {
    until(shown.words, async || {
        let said = migration(server, shown.words).await;
        let printed: Vec<String> = said.with(0).lines().map(without_numbers).collect();
        let mut lines = shown.prints.iter().map(|line| without_numbers(line));
        let missing = lines.find(|line| !printed.contains(line));
        match missing {
            Some(_) if shown.words == "status" => None,
            Some(line) => panic!("{}: no line {line:?} in {printed:#?}", shown.words),
            None => Some(()),
        }
    })
    .await;
}

/// The guide's loop makes a task and completes it, again and again, at least once. Nothing of that is refused.
async fn traffic(server: &TaskServer, is_over: &AtomicBool) -> Vec<String> {
    let (mut made, mut pace) = (Vec::new(), tokio::time::interval(PACE));
    loop {
        pace.tick().await;
        let created = server.post("/tasks", r#"{"title":"traffic"}"#).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json()["id"].as_str().unwrap().to_owned();
        let target = format!("/tasks/{id}/status?status=completed");
        let done = server.send("PUT", &target, &[], "").await;
        assert_eq!(done.status, 200, "{}", done.text());
        made.push(id);
        if is_over.load(Ordering::SeqCst) {
            return made;
        }
    }
}

/// Lets the traffic run beside what a person types.
async fn beside_traffic(server: &TaskServer, typing: impl Future<Output = ()>) -> Vec<String> {
    let is_over = AtomicBool::new(false);
    let typing = async {
        typing.await;
        is_over.store(true, Ordering::SeqCst);
    };
    tokio::join!(traffic(server, &is_over), typing).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_follows_the_guide_with_traffic_and_everything_is_as_it_says() {
    let components = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(components.port())).await;
    let (old, receiver) = (
        RedisServer::start().await,
        NotificationService::start("127.0.0.1:0"),
    );
    let addresses = [
        ("redis://127.0.0.1:6380", old.url()),
        (
            "http://127.0.0.1:8001",
            format!("http://{}", receiver.address()),
        ),
    ];
    let begin = |backend| {
        let arguments = serve(backend, &addresses);
        world.begin(&TaskServerOptions {
            arguments,
            ..world.options()
        })
    };

    let server = begin("direct").ready().await.unwrap();
    let mut made = traffic(&server, &AtomicBool::new(true)).await;
    assert!(server.stop().success());

    let server = begin("parallel").listening().await;
    let server = server.unwrap_or_else(|log| panic!("{log}\n{}", world.ours.log()));
    let mut shown = blocks("console").into_iter().flat_map(typed);
    // Nothing is served before that.
    follow(&server, &shown.next().unwrap()).await;
    let typing = async {
        for shown in shown {
            follow(&server, &shown).await;
        }
    };
    made.extend(beside_traffic(&server, typing).await);
    assert_eq!(stages(&server, "state").await, "complete");
    assert!(server.stop().success());

    let server = world.serve().await;
    for id in &made {
        let found = server.get(&format!("/tasks/{id}")).await;
        assert_eq!(
            (found.status, &found.json()["status"]),
            (200, &"completed".into()),
            "{id}"
        );
    }
    made.sort_unstable();
    until("every completion is notified, once", async || {
        let mut notified = [receiver.notified(), world.receiver.notified()].concat();
        notified.sort_unstable();
        (notified == made).then_some(())
    })
    .await;
}
