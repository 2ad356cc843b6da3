//! Whether topics exist, and what is done about it where they do not.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::client;
use super::config::MissingTopics;
use super::error::{Failure, Sent};
use super::producer::Producer;
use super::{KafkaConfig, blocking};

/// Pause between two looks for a topic that is being made.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long an answer may follow a refusal, which may be that of one broker of many.
const ANSWER_AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// How long a client that was refused is given to be let in: librdkafka tries again within a second, and
/// says nothing when it is refused for the same reason.
const LET_IN_WITHIN: Duration = Duration::from_secs(3);

/// Topics that were found once.
#[derive(Debug)]
pub(super) struct Topics {
    config: KafkaConfig,
    producer: Arc<Producer>,
    known: Mutex<HashMap<Box<str>, Arc<OnceCell<Partitions>>>>,
}

/// Partitions of a topic, numbered from 0.
pub(super) type Partitions = i32;

impl Topics {
    pub(super) fn new(config: &KafkaConfig, producer: Arc<Producer>) -> Self {
        Self {
            config: config.clone(),
            producer,
            known: Mutex::default(),
        }
    }

    /// Makes sure that a topic exists; asks the brokers only for the first time.
    pub(super) async fn ensure(&self, topic: &str) -> Result<(), Failure> {
        let cell = self.cell(topic);
        if cell.initialized() {
            return Ok(());
        }
        let limit = self.config.request_timeout;
        let found = timeout(limit, cell.get_or_try_init(|| self.find_or_create(topic)));
        match found.await {
            Ok(found) => found.map(|_| ()),
            Err(_) => Err(self.late()),
        }
    }

    /// How many partitions a topic has now; it is made if the configuration says so.
    pub(super) async fn partitions(&self, topic: &str) -> Result<Partitions, Failure> {
        let limit = self.config.request_timeout;
        let partitions = timeout(limit, self.find_or_create(topic)).await;
        let partitions = partitions.map_err(|_| self.late())??;
        // It need not be looked for again; if it is known already, that is as well.
        let _ = self.cell(topic).set(partitions);
        Ok(partitions)
    }

    /// Forgets a topic that is said to be gone.
    pub(super) fn forget(&self, topic: &str) {
        let known = self.known.lock();
        known.unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    /// Looks for the topics that are configured or in use; without any, for a broker.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let mut wanted: BTreeSet<String> = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|(_, cell)| cell.initialized())
            .map(|(topic, _)| topic.to_string())
            .collect();
        wanted.extend(self.config.topics.iter().map(|topic| topic.to_string()));
        if wanted.is_empty() {
            return self.look(None).await.map(|_| ());
        }
        for topic in wanted {
            let found = self.look(Some(&topic)).await?;
            if found.is_none() && self.config.missing_topics == MissingTopics::Refuse {
                return Err(Failure::NoTopic(topic));
            }
        }
        Ok(())
    }

    fn late(&self) -> Failure {
        let code = RDKafkaErrorCode::OperationTimedOut;
        self.producer
            .request_failure(KafkaError::MetadataFetch(code))
    }

    fn cell(&self, topic: &str) -> Arc<OnceCell<Partitions>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(topic) {
            Some(cell) => Arc::clone(cell),
            None => Arc::clone(known.entry(topic.into()).or_default()),
        }
    }

    async fn find_or_create(&self, topic: &str) -> Result<Partitions, Failure> {
        let mut created = false;
        loop {
            if let Some(partitions) = self.look(Some(topic)).await? {
                if partitions > 0 {
                    return Ok(partitions);
                }
            } else if !created {
                self.create(topic).await?;
                created = true;
            }
            // It exists, and not every broker knows yet who leads it.
            sleep(LOOK_AGAIN).await;
        }
    }

    /// How many partitions a topic has, 0 while one has no leader; `None` if there is no such topic.
    async fn look(&self, topic: Option<&str>) -> Result<Option<Partitions>, Failure> {
        let producer = self.producer.client();
        let name = topic.map(str::to_owned);
        let limit = self.config.request_timeout;
        let metadata = blocking(move || {
            let client = producer.client();
            client.fetch_metadata(name.as_deref(), limit)
        });
        // Nothing answers a client that is refused: it would wait for the whole limit.
        let mut metadata = pin!(metadata);
        let refusal = async {
            let voice = self.producer.voice();
            match voice.refused() {
                None => voice.refusal().await,
                Some(reason) => {
                    sleep(LET_IN_WITHIN).await;
                    reason
                }
            }
        };
        let metadata = tokio::select! {
            metadata = &mut metadata => metadata,
            reason = refusal => {
                let answer = timeout(ANSWER_AFTER_REFUSAL, metadata).await;
                answer.map_err(|_| Failure::Refused { reason, sent: Sent::Nothing })?
            }
        };
        let metadata = metadata?.map_err(|error| self.producer.request_failure(error))?;
        self.producer.is_accepted();
        let Some(topic) = topic else {
            return Ok(None);
        };
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(None);
            }
            Some(RDKafkaErrorCode::LeaderNotAvailable) => return Ok(Some(0)),
            Some(code) => {
                let topic = topic.to_owned();
                return Err(Failure::Topic { topic, code });
            }
        }
        let led = found.partitions().iter().all(|found| found.leader() >= 0);
        let count = i32::try_from(found.partitions().len()).unwrap_or(i32::MAX);
        Ok(Some(if led { count } else { 0 }))
    }

    async fn create(&self, topic: &str) -> Result<(), Failure> {
        let MissingTopics::Create {
            partitions,
            replication,
        } = self.config.missing_topics
        else {
            return Err(Failure::NoTopic(topic.to_owned()));
        };
        let client = client::administrator(&self.config);
        let admin = AdminClient::from_config_and_context(&client, self.producer.voice().clone())
            .map_err(Failure::Client)?;
        let replication = TopicReplication::Fixed(i32::from(replication));
        let new = NewTopic::new(topic, i32::from(partitions), replication);
        let limit = Some(self.config.request_timeout);
        let options = AdminOptions::new()
            .request_timeout(limit)
            .operation_timeout(limit);
        let created = admin.create_topics([&new], &options).await;
        // It joins its thread.
        blocking(move || drop(admin)).await?;
        let created = created.map_err(|error| self.producer.request_failure(error))?;
        match created.into_iter().next() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                tracing::info!(topic, partitions, "topic created");
                Ok(())
            }
            Some(Err((topic, code))) => Err(Failure::NotCreated { topic, code }),
        }
    }
}
