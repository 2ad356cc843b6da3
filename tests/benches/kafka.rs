//! P8: events published through the port and awaited, against librdkafka's own loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adapters_direct::kafka::{KafkaConfig, KafkaEventBus};
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use task_core::ports::{Event, EventBus, Topic};
use task_tests::process::KafkaBroker;
use tokio::task::JoinSet;

use crate::BenchResult;
use crate::figures::{is_steady, median, per_second, rate};
use crate::options::Options;
use crate::proc::processor_time;
use crate::report::{Row, Verdict};

/// Events on their way at once: as many requests await theirs.
const AT_ONCE: usize = 64;

/// Bytes of an event: an envelope with a task in it.
const PAYLOAD_BYTES: usize = 700;

const TOPIC: &str = "bench";

/// Turns of each in a round. They are short, because how many events share a request comes in phases.
const TURNS: u32 = 20;

/// One round, events a second.
struct Rates {
    bare: f64,
    port: f64,
    /// One event at a time.
    bare_alone: f64,
    port_alone: f64,
    /// Processor time of one event of many, in microseconds.
    bare_cpu_us: f64,
    port_cpu_us: f64,
}

/// P8: awaited publications a second.
pub(crate) fn publish_rate(options: &Options) -> BenchResult<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.workers)
        .enable_all()
        .build()?;
    let broker = runtime.block_on(async {
        let broker = KafkaBroker::start().await;
        broker.create_topic(TOPIC, 3).await;
        broker
    });
    let bus = {
        let _inside = runtime.enter();
        KafkaEventBus::open(KafkaConfig::new(broker.bootstrap()))?
    };
    let port = Sender::Port(Arc::new(bus));
    let bare = Sender::Bare(bare_producer(&broker)?);
    let time = options.load_time() / TURNS;
    let in_turns = |at_once| -> BenchResult<(Published, Published)> {
        let (mut by_bare, mut by_port) = (Published::default(), Published::default());
        for _ in 0..TURNS {
            by_bare.add(&runtime.block_on(publish(&bare, at_once, time))?);
            by_port.add(&runtime.block_on(publish(&port, at_once, time))?);
        }
        Ok((by_bare, by_port))
    };
    let mut rounds = Vec::new();
    for _ in 0..=options.rounds() {
        let (bare, port) = in_turns(AT_ONCE)?;
        let (bare_alone, port_alone) = in_turns(1)?;
        rounds.push(Rates {
            bare: bare.rate(),
            port: port.rate(),
            bare_alone: bare_alone.rate(),
            port_alone: port_alone.rate(),
            bare_cpu_us: bare.cpu_us(),
            port_cpu_us: port.cpu_us(),
        });
    }
    rounds.remove(0);
    Ok(row(&rounds))
}

fn row(rounds: &[Rates]) -> Row {
    let of = |value: fn(&Rates) -> f64| median(rounds.iter().map(value));
    let ratio = of(|round| round.port / round.bare);
    let alone = of(|round| round.port_alone / round.bare_alone);
    let (port, bare) = (of(|round| round.port), of(|round| round.bare));
    let (port_alone, bare_alone) = (of(|r| r.port_alone), of(|r| r.bare_alone));
    let (port_cpu_us, bare_cpu_us) = (of(|r| r.port_cpu_us), of(|r| r.bare_cpu_us));
    let steady = is_steady(rounds.iter().map(|round| round.bare));
    Row {
        number: "P8",
        what: format!("Kafka publish, awaited, {AT_ONCE} at once"),
        target: "≥ 0.85 × bare FutureProducer (0.95)".to_owned(),
        measured: rate(port),
        ratio: format!("{ratio:.2} × bare"),
        verdict: Verdict::of(ratio >= 0.85, ratio >= 0.95).if_steady(steady),
        notes: vec![
            format!(
                "bare {}; processor time of one event {port_cpu_us:.1} µs, bare {bare_cpu_us:.1} µs",
                rate(bare)
            ),
            format!(
                "one at a time: {}, {alone:.2} × bare {}",
                rate(port_alone),
                rate(bare_alone)
            ),
        ],
        values: json!({
            "port_per_s": port, "bare_per_s": bare, "port_to_bare": ratio,
            "port_alone_per_s": port_alone, "bare_alone_per_s": bare_alone,
            "port_to_bare_alone": alone,
            "port_cpu_us": port_cpu_us, "bare_cpu_us": bare_cpu_us,
        }),
    }
}

/// The same settings as the adapter's.
fn bare_producer(broker: &KafkaBroker) -> BenchResult<FutureProducer> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "fnv1a_random")
        .set("message.timeout.ms", "10000")
        .set("request.timeout.ms", "10000")
        .set("linger.ms", "0")
        .set("socket.nagle.disable", "true")
        .set("queue.buffering.max.messages", "10000")
        .set("queue.buffering.max.kbytes", "65536")
        .create()?;
    Ok(producer)
}

/// Who publishes.
#[derive(Clone)]
enum Sender {
    Port(Arc<dyn EventBus>),
    Bare(FutureProducer),
}

impl Sender {
    async fn send(&self, event: &Event) -> Result<(), String> {
        match self {
            Self::Port(bus) => bus.publish(event).await.map_err(|error| error.to_string()),
            Self::Bare(producer) => {
                let record = FutureRecord::to(TOPIC)
                    .key(&*event.key)
                    .payload(&*event.payload);
                let sent = producer.send(record, Duration::ZERO).await;
                sent.map(drop).map_err(|(error, _)| error.to_string())
            }
        }
    }
}

/// What loads came to.
#[derive(Default)]
struct Published {
    count: u64,
    elapsed: Duration,
    processor: Duration,
}

impl Published {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.elapsed += other.elapsed;
        self.processor += other.processor;
    }

    fn rate(&self) -> f64 {
        per_second(self.count, self.elapsed)
    }

    fn cpu_us(&self) -> f64 {
        1e6 / per_second(self.count, self.processor)
    }
}

async fn publish(sender: &Sender, at_once: usize, time: Duration) -> BenchResult<Published> {
    let used = processor_time(std::process::id())?;
    let begin = Instant::now();
    let end = begin + time;
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut running = JoinSet::new();
    for publisher in 0..at_once {
        let (sender, payload) = (sender.clone(), payload.clone());
        running.spawn(async move {
            let event = Event {
                topic: Topic::new(TOPIC),
                key: format!("task-{publisher}").into(),
                payload,
            };
            let mut count = 0;
            while Instant::now() < end {
                sender.send(&event).await?;
                count += 1;
            }
            Ok::<u64, String>(count)
        });
    }
    let mut count = 0;
    while let Some(ended) = running.join_next().await {
        count += ended??;
    }
    Ok(Published {
        count,
        elapsed: begin.elapsed(),
        processor: processor_time(std::process::id())? - used,
    })
}
