//! P6: what the adapter for Dapr's state costs on top of the generated client, on a real sidecar.
//!
//! The store is opened as the service opens it, so that it keeps events. A change is then a read and a write over the
//! version that was read, on both sides. A write without a condition reads first as well, which the bare client does not.

use std::sync::Arc;
use std::time::Duration;

use adapters_dapr::{
    DaprStateStore, Events, Sidecar as Adapter, SidecarConfig, SidecarOptions as AdapterOptions,
    StateStoreOptions,
};
use bytes::Bytes;
use dapr::dapr::proto::common::v1::state_options::StateConsistency;
use dapr::dapr::proto::common::v1::{Etag, StateItem, StateOptions};
use dapr::dapr::proto::runtime::v1::dapr_client::DaprClient;
use dapr::dapr::proto::runtime::v1::{GetStateRequest, SaveStateRequest};
use serde_json::json;
use task_core::ports::{Key, Kind, PutOptions, StateStore, WriteMode};
use task_tests::process::dapr::Component;
use task_tests::process::{RedisServer, Sidecar, SidecarOptions};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::BenchResult;
use crate::calls::{Called, Compared, compare, keep_up};
use crate::figures::rate;
use crate::options::Options;
use crate::report::{Row, Verdict};

/// Calls at once, on one channel.
const AT_ONCE: usize = 64;

/// Keys that they go to in turn.
const KEYS: usize = 1_000;

const STORE: &str = "statestore";

/// What is asked for, again and again.
#[derive(Debug, Clone, Copy)]
enum Call {
    Get,
    /// A get, and a put over its version.
    Change,
    /// A put without a condition.
    Put,
}

/// The same requests by the adapter and bare, on a channel each with the same settings.
struct Pair {
    runtime: Runtime,
    store: Arc<DaprStateStore>,
    bare: DaprClient<Channel>,
    value: Bytes,
    // Dropped last: the channels end first.
    _sidecar: Sidecar,
    _redis: RedisServer,
}

impl Pair {
    fn open(options: &Options) -> BenchResult<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.workers)
            .enable_all()
            .build()?;
        let value = json!({
            "id": "0199a2d4-5b7c-7d3e-8f10-123456789abc",
            "title": "write the quarterly report",
            "description": "two pages, figures included",
            "status": "pending",
            "priority": 3,
            "created_at": "2026-11-21T02:08:47.911595Z",
            "updated_at": "2026-11-21T02:08:47.911595Z",
        });
        let value = Bytes::from(value.to_string());
        let opened = runtime.block_on(async {
            let redis = RedisServer::start().await;
            let component = Component::redis_state(STORE, &redis.url());
            let sidecar = Sidecar::start(SidecarOptions::of("task-api", [component])).await;
            let ports = [
                ("DAPR_HTTP_PORT", sidecar.http_port()),
                ("DAPR_GRPC_PORT", sidecar.grpc_port()),
            ];
            let variables = ports.map(|(name, port)| (name.to_owned(), port.to_string()));
            let config = SidecarConfig::from_env_vars(variables)?;
            let adapter = Adapter::new(config, AdapterOptions::default())?;
            let mut options = StateStoreOptions::default();
            options.events = Events::Kept;
            let store = DaprStateStore::open(&adapter, options).await?;
            for number in 0..KEYS {
                let options = PutOptions::default();
                store.put(&key(number), value.clone(), options).await?;
            }
            let bare = bare_client(&sidecar.grpc_url())?;
            Ok::<_, Box<dyn std::error::Error>>((redis, sidecar, store, bare))
        });
        let (redis, sidecar, store, bare) = opened?;
        Ok(Self {
            runtime,
            store: Arc::new(store),
            bare,
            value,
            _sidecar: sidecar,
            _redis: redis,
        })
    }

    fn port(&self, call: Call, at_once: usize, time: Duration) -> BenchResult<Called> {
        let (store, value) = (Arc::clone(&self.store), self.value.clone());
        self.runtime.block_on(keep_up(time, at_once, move |number| {
            let (store, value) = (Arc::clone(&store), value.clone());
            async move {
                let key = key(number);
                match call {
                    Call::Get => store.get(&key).await.is_ok_and(|found| found.is_some()),
                    Call::Change => {
                        let Ok(Some(found)) = store.get(&key).await else {
                            return false;
                        };
                        let mode = WriteMode::Match(found.etag);
                        let put = store.put(&key, value, PutOptions { mode, ttl: None });
                        put.await.is_ok()
                    }
                    Call::Put => store.put(&key, value, PutOptions::default()).await.is_ok(),
                }
            }
        }))
    }

    fn bare(&self, call: Call, at_once: usize, time: Duration) -> BenchResult<Called> {
        let (bare, value) = (self.bare.clone(), self.value.clone());
        self.runtime.block_on(keep_up(time, at_once, move |number| {
            let (mut bare, value) = (bare.clone(), value.clone());
            async move {
                match call {
                    Call::Get => {
                        let found = bare.get_state(get_request(number)).await;
                        found.is_ok_and(|found| !found.get_ref().data.is_empty())
                    }
                    Call::Change => {
                        let Ok(found) = bare.get_state(get_request(number)).await else {
                            return false;
                        };
                        let etag = Some(found.into_inner().etag);
                        let put = put_request(number, &value, etag);
                        bare.save_state(put).await.is_ok()
                    }
                    Call::Put => {
                        let put = put_request(number, &value, None);
                        bare.save_state(put).await.is_ok()
                    }
                }
            }
        }))
    }

    /// Both in turns.
    fn compare(&self, options: &Options, call: Call, at_once: usize) -> BenchResult<Compared> {
        compare(
            options,
            options.load_time() / 2,
            |time| self.port(call, at_once, time),
            |time| self.bare(call, at_once, time),
        )
    }
}

/// P6: get and change through the port.
pub(crate) fn get_and_change(options: &Options) -> BenchResult<Row> {
    let pair = Pair::open(options)?;
    let get = pair.compare(options, Call::Get, AT_ONCE)?;
    let change = pair.compare(options, Call::Change, AT_ONCE)?;
    let get_alone = pair.compare(options, Call::Get, 1)?;
    let change_alone = pair.compare(options, Call::Change, 1)?;
    let put = pair.compare(options, Call::Put, AT_ONCE)?;
    let worst = get.ratio.min(change.ratio);
    // Two calls.
    let added = get_alone.added_us.max(change_alone.added_us / 2.0);
    let all = [&get, &change, &get_alone, &change_alone];
    let alone = |one: &Compared| {
        format!(
            "p50 {:.0} µs, bare {:.0} µs",
            one.subject.p50_us, one.bare.p50_us
        )
    };
    Ok(Row {
        number: "P6",
        what: format!("Dapr state get and change (get, put), {AT_ONCE} at once on one channel"),
        target: "≥ 0.90 × bare client, alone p50 + ≤ 60 µs a call (0.97, 25 µs)".to_owned(),
        measured: format!(
            "get {}, change {}",
            rate(get.subject.rate),
            rate(change.subject.rate)
        ),
        ratio: format!(
            "{:.2} and {:.2} × bare, alone {:+.0} and {:+.0} µs",
            get.ratio, change.ratio, get_alone.added_us, change_alone.added_us
        ),
        verdict: Verdict::of(
            worst >= 0.90 && added <= 60.0,
            worst >= 0.97 && added <= 25.0,
        )
        .if_steady(all.iter().all(|one| one.steady)),
        notes: vec![
            format!("get {}; change {}", get.cost(), change.cost()),
            format!(
                "alone get {}; change {}",
                alone(&get_alone),
                alone(&change_alone)
            ),
            format!(
                "a put without a condition, which reads first: {}, {:.2} × bare",
                rate(put.subject.rate),
                put.ratio
            ),
        ],
        values: json!({
            "get": get.values(), "change": change.values(), "put": put.values(),
            "get_alone": get_alone.values(), "change_alone": change_alone.values(),
        }),
    })
}

/// The generated client on a channel with the adapter's settings.
fn bare_client(url: &str) -> BenchResult<DaprClient<Channel>> {
    let options = AdapterOptions::default();
    let channel = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(options.connect_timeout)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.ping_after)
        .keep_alive_timeout(options.ping_timeout)
        .keep_alive_while_idle(true)
        .connect_lazy();
    Ok(DaprClient::new(channel))
}

fn key(number: usize) -> Key {
    Key::new(Kind::TASK, format!("bench-{}", number % KEYS))
}

/// What the adapter sends for the same key.
fn get_request(number: usize) -> GetStateRequest {
    GetStateRequest {
        store_name: STORE.to_owned(),
        key: format!("task-bench-{}", number % KEYS),
        consistency: StateConsistency::ConsistencyStrong.into(),
        ..GetStateRequest::default()
    }
}

/// What the adapter sends for a put over a version, or without a condition where it keeps no events.
fn put_request(number: usize, value: &[u8], etag: Option<String>) -> SaveStateRequest {
    let item = StateItem {
        key: format!("task-bench-{}", number % KEYS),
        value: value.to_vec(),
        etag: etag.map(|value| Etag { value }),
        metadata: [("ttlInSeconds".to_owned(), "-1".to_owned())].into(),
        options: Some(StateOptions::default()),
    };
    SaveStateRequest {
        store_name: STORE.to_owned(),
        states: vec![item],
    }
}
