//! What is late on its way from the sidecar to Redis, or arrives there after everybody has given it up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters_dapr::{DaprStateStore, Events, StateStoreOptions};
use futures_util::future::{join, join_all};
use serde_json::json;
use task_core::ports::{Commit, DeleteMode, DeleteOptions, Outcome, StateStore, WriteMode};
use task_tests::backends::dapr::connect;
use task_tests::process::dapr::Component;
use task_tests::process::{Sidecar, SidecarOptions};
use task_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Stack, etag, event, pending, put, settle_all, task, value};

/// A network towards Redis that can hold one request back.
struct Network {
    port: u16,
    /// What the request contains that is held back next.
    trap: Mutex<Option<&'static [u8]>>,
    /// Everything else is held back with it.
    cuts: bool,
    held: AtomicUsize,
    /// Answers to what was held back.
    late: AtomicUsize,
    is_open: watch::Sender<bool>,
}

impl Network {
    async fn start(to: u16) -> Arc<Self> {
        Self::start_with(to, false).await
    }

    /// One that holds back everything from the moment on at which it holds back something.
    async fn that_breaks(to: u16) -> Arc<Self> {
        Self::start_with(to, true).await
    }

    async fn start_with(to: u16, cuts: bool) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let network = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            trap: Mutex::default(),
            cuts,
            held: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            is_open: watch::channel(false).0,
        });
        let shared = Arc::clone(&network);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { shared.carry(client, to).await });
            }
        });
        network
    }

    async fn carry(&self, client: TcpStream, to: u16) {
        let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let was_held = AtomicBool::new(false);
        let back = async {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                if was_held.swap(false, Ordering::Relaxed) {
                    self.late.fetch_add(1, Ordering::Relaxed);
                }
                // Perhaps nobody waits for it any more.
                drop(to_client.write_all(&buffer[..length]).await);
            }
        };
        join(self.carry_requests(from_client, to_server, &was_held), back).await;
    }

    async fn carry_requests(
        &self,
        mut client: OwnedReadHalf,
        mut server: OwnedWriteHalf,
        was_held: &AtomicBool,
    ) {
        let mut is_open = self.is_open.subscribe();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = client.read(&mut buffer).await {
            let mut bytes = buffer[..length].to_vec();
            if self.holds(&bytes) {
                // What belongs to it may still come, and the sidecar may give it up.
                let opened = is_open.wait_for(|open| *open);
                let rest = async {
                    while let Ok(length @ 1..) = client.read(&mut buffer).await {
                        bytes.extend_from_slice(&buffer[..length]);
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    _ = opened => was_held.store(true, Ordering::Relaxed),
                    () = rest => {}
                }
            }
            if server.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }

    fn hold(&self, what: &'static [u8]) {
        *self.trap.lock().unwrap() = Some(what);
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        let mut trap = self.trap.lock().unwrap();
        let is_it = trap.is_some_and(|what| bytes.windows(what.len()).any(|part| part == what));
        if is_it {
            *trap = None;
        }
        let is_cut = self.cuts && self.held.load(Ordering::Relaxed) > 0 && !*self.is_open.borrow();
        let is_held = is_it || is_cut;
        self.held.fetch_add(usize::from(is_held), Ordering::Relaxed);
        is_held
    }

    async fn holds_it(&self) {
        until("it is held back", async || {
            (self.held.load(Ordering::Relaxed) > 0).then_some(())
        })
        .await;
    }

    async fn holds_nothing(&self) {
        self.is_open.send_replace(true);
        until("it has arrived", async || {
            let late = self.late.load(Ordering::Relaxed);
            (late >= self.held.load(Ordering::Relaxed)).then_some(())
        })
        .await;
    }
}

/// A second sidecar, behind a network of its own.
async fn beside(network: &Network) -> Sidecar {
    let redis = format!("redis://127.0.0.1:{}", network.port);
    let component = Component::redis_state("statestore", &redis);
    Sidecar::start(SidecarOptions::of("task-api", [component])).await
}

async fn open_on(sidecar: &Sidecar) -> DaprStateStore {
    let sidecar = connect(sidecar, &[], adapters_dapr::SidecarOptions::default());
    let mut options = StateStoreOptions::default();
    options.events = Events::Kept;
    DaprStateStore::open(&sidecar.unwrap(), options)
        .await
        .unwrap()
}

fn create(id: &str) -> Commit {
    put(id, &json!({"id": id}), WriteMode::Create).event(event(id))
}

/// A replica whose next notes fill one document and begin another, and a network that holds back the first one.
async fn before_the_second_document(store: &DaprStateStore, network: &Network) -> Vec<String> {
    for number in 0..250 {
        let id = format!("{number:03}");
        store.commit(create(&id)).await.unwrap();
    }
    network.hold(br#""through":256"#);
    (250..262).map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_in_two_documents_are_found_by_who_looks_between_them() {
    let stack = Stack::start().await;
    let network = Network::start(stack.redis.port()).await;
    let sidecar = beside(&network).await;
    let (busy, relay) = (open_on(&sidecar).await, stack.open().await);
    let names = before_the_second_document(&busy, &network).await;
    let settled = async || {
        let mut all = Vec::new();
        loop {
            let found = pending(&relay).await;
            if found.is_empty() {
                return all;
            }
            all.extend(found);
            settle_all(&relay).await;
        }
    };
    settled().await;
    let look = async {
        network.holds_it().await;
        // The first of them may have been noted alone.
        let found = settled().await;
        network.holds_nothing().await;
        found
    };
    let writes = join_all(names.iter().map(|name| busy.commit(create(name))));
    let (answers, mut found) = tokio::join!(writes, look);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    found.extend(settled().await);
    assert_eq!(found, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_is_not_settled_because_a_later_one_is_known() {
    let stack = Stack::start().await;
    let network = Network::start(stack.redis.port()).await;
    let sidecar = beside(&network).await;
    let (busy, relay) = (open_on(&sidecar).await, stack.open().await);
    let names = before_the_second_document(&busy, &network).await;
    let look = async {
        network.holds_it().await;
        drop(pending(&relay).await);
        network.holds_nothing().await;
    };
    let writes = join_all(names.iter().map(|name| busy.commit(create(name))));
    let (answers, ()) = tokio::join!(writes, look);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    for id in &names {
        let options = DeleteOptions {
            mode: DeleteMode::Match(etag(&relay, id).await),
            tombstone: Some(Duration::from_secs(60)),
        };
        relay.delete(&task(id), options).await.unwrap();
    }
    let found = pending(&relay).await;
    let lost: Vec<&String> = names.iter().filter(|name| !found.contains(name)).collect();
    assert_eq!(lost, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_of_the_journal_that_arrives_late_takes_no_later_note_away() {
    let stack = Stack::start().await;
    let network = Network::start(stack.redis.port()).await;
    let sidecar = beside(&network).await;
    let dying = open_on(&sidecar).await;
    dying.commit(create("0")).await.unwrap();
    network.hold(br#""notes""#);
    let error = dying.commit(create("1")).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    for id in ["2", "3"] {
        until("the journal can be saved", async || {
            dying.commit(create(id)).await.ok()
        })
        .await;
    }
    drop(dying);
    network.holds_nothing().await;
    let other = stack.open().await;
    assert_eq!(pending(&other).await, ["0", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_given_up_never_lands_without_its_event() {
    for id in ["there", "new"] {
        let stack = Stack::start().await;
        let network = Network::that_breaks(stack.redis.port()).await;
        let sidecar = beside(&network).await;
        let far = open_on(&sidecar).await;
        let near = stack
            .open_with(|options| options.refuse_after = Duration::from_millis(100))
            .await;
        let first = put("there", &json!({"v": 1}), WriteMode::Create).event(event("first"));
        far.commit(first).await.unwrap();
        settle_all(&near).await;
        let mode = match id {
            "there" => WriteMode::Match(etag(&far, id).await),
            _ => WriteMode::Create,
        };
        network.hold(br#""v":2"#);
        let change = put(id, &json!({"v": 2}), mode).event(event("late"));
        let error = far.commit(change).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        // It is under way for ever, as far as anybody knows.
        let version = ["HGET", &format!("task-api||task-{id}"), "version"];
        let before = stack.redis.command(&version).await;
        until("it is refused", async || {
            assert_eq!(pending(&near).await, [""; 0]);
            (stack.redis.command(&version).await != before).then_some(())
        })
        .await;
        network.holds_nothing().await;
        let other = stack.open().await;
        let expected = (id == "there").then(|| json!({"v": 1}));
        assert_eq!(value(&other, id).await, expected, "{id}");
        assert_eq!(pending(&other).await, [""; 0], "{id}");
        let again = put(id, &json!({"v": 3}), WriteMode::Overwrite).event(event("again"));
        other.commit(again).await.unwrap();
        assert_eq!(pending(&other).await, ["again"], "{id}");
    }
}
