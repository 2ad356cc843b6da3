//! Sends events, and begins anew where librdkafka has given up for good.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::KafkaConfig;
use super::client::{self, Voice};
use super::error::{Failure, Sent};

/// The one producer of a bus.
pub(super) struct Producer {
    config: KafkaConfig,
    voice: Voice,
    current: RwLock<FutureProducer<Voice>>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

/// What goes into the log.
#[derive(Debug, Clone)]
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    /// Without one the partition is a random one.
    pub(super) key: Option<&'a [u8]>,
    pub(super) payload: &'a [u8],
    pub(super) headers: Option<OwnedHeaders>,
}

impl Producer {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, Failure> {
        let voice = Voice::new(config);
        Ok(Self {
            current: RwLock::new(create(config, &voice)?),
            voice,
            config: config.clone(),
        })
    }

    /// Sends an event and returns once every copy in step has it.
    ///
    /// # Cancel safety
    /// A dropped call may have sent the event.
    pub(super) async fn send(&self, record: Record<'_>) -> Result<(), Failure> {
        let producer = self.usable()?;
        let mut future = FutureRecord::to(record.topic).payload(record.payload);
        future.key = record.key;
        future.headers = record.headers;
        let sent = producer
            .send_result(future)
            .map_err(|(error, _)| Failure::Enqueue(error))?;
        match sent.await {
            Ok(Ok(_)) => {
                self.voice.accepted();
                Ok(())
            }
            Ok(Err((error, _))) => Err(self.delivery_failure(&producer, error)),
            Err(_) => Err(self.delivery_failure(&producer, KafkaError::Canceled)),
        }
    }

    /// The client, for questions about the cluster.
    pub(super) fn client(&self) -> FutureProducer<Voice> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the clients of this bus say.
    pub(super) fn voice(&self) -> &Voice {
        &self.voice
    }

    /// Notes that the brokers have answered us.
    pub(super) fn is_accepted(&self) {
        self.voice.accepted();
    }

    /// Says why a request failed, which is often that the brokers refuse us.
    pub(super) fn request_failure(&self, error: KafkaError) -> Failure {
        match self.voice.refused() {
            Some(reason) => Failure::Refused {
                reason,
                sent: Sent::Nothing,
            },
            None => Failure::Request(error),
        }
    }

    fn delivery_failure(&self, producer: &FutureProducer<Voice>, error: KafkaError) -> Failure {
        use RDKafkaErrorCode::{Fatal, PurgeInflight, PurgeQueue};
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::MessageTimedOut)
            && let Some(reason) = self.voice.refused()
        {
            let sent = Sent::Perhaps;
            return Failure::Refused { reason, sent };
        }
        // With a fatal error everything that waits fails without saying why.
        let source = match (code, producer.client().fatal_error()) {
            (Some(Fatal | PurgeQueue | PurgeInflight), Some((reason, _))) => {
                KafkaError::MessageProduction(reason)
            }
            (_, _) => error,
        };
        Failure::Delivery {
            source,
            deadline: self.config.delivery_timeout,
        }
    }

    /// The current client, or a new one in place of one that can never send again.
    fn usable(&self) -> Result<FutureProducer<Voice>, Failure> {
        let producer = self.client();
        if producer.client().fatal_error().is_none() {
            return Ok(producer);
        }
        let current = self.current.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        // Another caller may have been faster.
        if let Some((code, reason)) = current.client().fatal_error() {
            tracing::error!(?code, reason, "kafka producer begins anew");
            *current = create(&self.config, &self.voice)?;
        }
        Ok(current.clone())
    }
}

fn create(config: &KafkaConfig, voice: &Voice) -> Result<FutureProducer<Voice>, Failure> {
    client::producer(config)
        .create_with_context(voice.clone())
        .map_err(Failure::Client)
}
