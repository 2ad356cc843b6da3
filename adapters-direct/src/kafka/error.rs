//! What a failure of Kafka means: the one mapping of this adapter.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use task_core::ports::{ErrorKind, PortError};

use crate::config::ConfigProblems;

pub(super) const BACKEND: &str = "kafka";

/// What keeps us out of a group that shares its partitions otherwise than we do.
const OTHER_STRATEGY: &str = "another consumer of the group shares partitions by another strategy; \
    stop it, or set its partition.assignment.strategy to range as ours is";

/// Everything that can fail here.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigProblems),
    #[error("librdkafka refuses the configuration")]
    Client(#[source] KafkaError),
    #[error("topic {0} does not exist and may not be created: missing_topics is refuse")]
    NoTopic(String),
    /// The brokers do not let us make it.
    #[error("topic {topic} does not exist and may not be created")]
    NotCreated {
        topic: String,
        code: RDKafkaErrorCode,
    },
    #[error("topic {topic} is not ready")]
    Topic {
        topic: String,
        code: RDKafkaErrorCode,
    },
    /// A request that changed nothing when it failed.
    #[error("a request failed")]
    Request(#[source] KafkaError),
    /// An event that was not taken into the queue.
    #[error("the event was not sent")]
    Enqueue(#[source] KafkaError),
    /// An event that was sent, or was about to be.
    #[error("the event was not acknowledged within {} ms", deadline.as_millis())]
    Delivery {
        source: KafkaError,
        deadline: Duration,
    },
    /// The brokers refuse who we are, which is why nothing is answered.
    #[error("the brokers refuse us: {reason}")]
    Refused { reason: String, sent: Sent },
    #[error("group {group} did not assign partitions within {} ms", limit.as_millis())]
    NotJoined { group: String, limit: Duration },
    /// Nothing to begin at.
    #[error(
        "group {group} has no position in topic {topic}: its name is another one, or the brokers have forgotten it"
    )]
    NoPosition { group: String, topic: String },
    #[error(
        "group {group} has members, {members} of them, who hear the same events: stop them first"
    )]
    HasMembers { group: String, members: usize },
    #[error("the bus was closed meanwhile")]
    Closed,
}

/// Whether an event may have reached a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Perhaps,
    Nothing,
}

/// Maps a failure by its meaning.
pub(super) fn port_error(operation: &'static str, failure: Failure) -> PortError {
    let context = failure.to_string();
    let new = |kind| PortError::new(kind, BACKEND, operation).context(context.as_str());
    match failure {
        Failure::Config(source) => new(ErrorKind::Invalid).caused_by(source),
        // Its message holds the value, and that may be the password.
        Failure::Client(KafkaError::ClientConfig(_, _, key, _)) => {
            new(ErrorKind::Invalid).context(format!("{context}: {key}"))
        }
        Failure::Client(source) => new(ErrorKind::Invalid).caused_by(source),
        Failure::NoTopic(_) | Failure::NoPosition { .. } => new(ErrorKind::NotFound),
        Failure::HasMembers { .. } => new(ErrorKind::Conflict),
        Failure::Topic { code, .. } | Failure::NotCreated { code, .. } => {
            let (kind, what, _) = said(code);
            new(kind).context(format!("{context}: {what}"))
        }
        Failure::Request(source) | Failure::Enqueue(source) => {
            let (kind, what, _) = meaning_of(&source);
            new(kind).context(what).caused_by(source)
        }
        Failure::Delivery { source, deadline } => delivery(operation, source, deadline),
        Failure::Refused { sent, .. } => match sent {
            Sent::Perhaps => new(ErrorKind::Denied).unknown_outcome(),
            Sent::Nothing => new(ErrorKind::Denied),
        },
        Failure::NotJoined { .. } => new(ErrorKind::Timeout),
        Failure::Closed => new(ErrorKind::Unavailable),
    }
}

fn delivery(operation: &'static str, source: KafkaError, deadline: Duration) -> PortError {
    let (kind, what, sent) = meaning_of(&source);
    let what = if kind == ErrorKind::Timeout {
        format!("{what} within {} ms", deadline.as_millis())
    } else {
        what
    };
    let error = PortError::new(kind, BACKEND, operation).context(what);
    let error = match sent {
        Sent::Perhaps => error.unknown_outcome(),
        Sent::Nothing => error,
    };
    error.caused_by(source)
}

fn meaning_of(error: &KafkaError) -> (ErrorKind, String, Sent) {
    match error.rdkafka_error_code() {
        Some(code) => said(code),
        None => (
            ErrorKind::Unexpected,
            "librdkafka refused the call".to_owned(),
            Sent::Perhaps,
        ),
    }
}

/// What a code means, with its name before the words: by that people find it in Kafka's documentation.
fn said(code: RDKafkaErrorCode) -> (ErrorKind, String, Sent) {
    let (kind, words, sent) = meaning(code);
    (kind, format!("{code:?}: {words}"), sent)
}

/// Whether a failure says that brokers are away, or not ready to serve again.
pub(super) fn is_outage(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AllBrokersDown
                | Code::Authentication
                | Code::BrokerNotAvailable
                | Code::BrokerTransportFailure
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::LeaderNotAvailable
                | Code::NetworkException
                | Code::NotCoordinator
                | Code::NotLeaderForPartition
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::Resolve
                | Code::SSL
                | Code::SaslAuthenticationFailed
                | Code::TimedOutQueue
                | Code::WaitingForCoordinator
        )
    )
}

/// Whether a failure says that the brokers will never take this event into this topic.
pub(super) fn is_too_large(failure: &Failure) -> bool {
    use RDKafkaErrorCode::{InvalidMessageSize, MessageBatchTooLarge, MessageSizeTooLarge};
    let (Failure::Delivery { source, .. } | Failure::Enqueue(source)) = failure else {
        return false;
    };
    matches!(
        source.rdkafka_error_code(),
        Some(MessageSizeTooLarge | InvalidMessageSize | MessageBatchTooLarge)
    )
}

/// Whether a failure says that the group will not let us in as long as its other members are there.
pub(super) fn is_shut_out(failure: &Failure) -> bool {
    let Failure::Request(error) = failure else {
        return false;
    };
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::InconsistentGroupProtocol)
}

/// Whether a failure says that the topic is not there, or not there for us.
pub(super) fn forbids_topic(error: &KafkaError) -> bool {
    matches!(meaning_of(error).0, ErrorKind::NotFound | ErrorKind::Denied)
}

/// Kind, words for people, and whether an event that failed so may be in the log all the same.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the codes not named here all mean a bug of ours or of the broker"
)]
fn meaning(code: RDKafkaErrorCode) -> (ErrorKind, &'static str, Sent) {
    use ErrorKind::{
        Denied, Invalid, NotFound, Throttled, Timeout, Unavailable, Unexpected, Unsupported,
    };
    use RDKafkaErrorCode as Code;
    use Sent::{Nothing, Perhaps};
    match code {
        Code::MessageTimedOut => (Timeout, "the event was not acknowledged", Perhaps),
        Code::OperationTimedOut | Code::TimedOutQueue | Code::RequestTimedOut => {
            (Timeout, "no answer in time", Perhaps)
        }
        Code::QueueFull => (Throttled, "too many events wait to be sent", Nothing),
        Code::ThrottlingQuotaExceeded => (Throttled, "a quota is used up", Nothing),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            (Invalid, "the event is too large for the brokers", Nothing)
        }
        Code::InvalidTopic => (Invalid, "this is no name of a topic", Nothing),
        Code::InvalidRecord | Code::PolicyViolation => {
            (Invalid, "the brokers' policy forbids the event", Nothing)
        }
        Code::InvalidReplicationFactor | Code::InvalidPartitions | Code::InvalidConfig => {
            (Invalid, "the brokers cannot make such a topic", Nothing)
        }
        Code::TopicAuthorizationFailed => (Denied, "we may not use the topic", Nothing),
        Code::GroupAuthorizationFailed => (Denied, "we may not use the group", Nothing),
        Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            (Denied, "we may not write", Nothing)
        }
        Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::SSL => (Denied, "the brokers refuse who we are", Nothing),
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => {
            (NotFound, "the topic does not exist", Nothing)
        }
        Code::UnsupportedFeature | Code::UnsupportedVersion => {
            (Unsupported, "the brokers are too old", Nothing)
        }
        Code::NotEnoughReplicas | Code::ISRInsufficient => {
            (Unavailable, "too few copies are in step", Nothing)
        }
        Code::NotEnoughReplicasAfterAppend => (Unavailable, "too few copies were made", Perhaps),
        Code::LeaderNotAvailable | Code::NotLeaderForPartition | Code::BrokerNotAvailable => {
            (Unavailable, "the partition has no leader", Nothing)
        }
        Code::PurgeQueue => (Unavailable, "the producer was closed", Nothing),
        Code::PurgeInflight => (Unavailable, "the producer was closed", Perhaps),
        Code::Fatal
        | Code::Fenced
        | Code::OutOfOrderSequenceNumber
        | Code::InvalidProducerEpoch
        | Code::ProducerFenced
        | Code::UnknownProducerId
        | Code::GaplessGuarantee => (Unavailable, "the producer has to begin anew", Perhaps),
        Code::BrokerTransportFailure
        | Code::NetworkException
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::KafkaStorageError => (Unavailable, "the brokers cannot be reached", Perhaps),
        Code::WaitingForCoordinator
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::RebalanceInProgress => (Unavailable, "the group has no coordinator yet", Nothing),
        Code::InconsistentGroupProtocol => (ErrorKind::Conflict, OTHER_STRATEGY, Nothing),
        _ => (Unexpected, "kafka refused the request", Perhaps),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use task_core::ports::Outcome::{self, NotApplied, Unknown};
    use task_core::ports::Retry::{self, Maybe, Never};

    use super::*;
    use crate::kafka::client::STRATEGY;

    const DEADLINE: Duration = Duration::from_millis(1500);

    /// Code, and what it means of an event that was on its way.
    const ROWS: &[(RDKafkaErrorCode, ErrorKind, Retry, Outcome)] = {
        use ErrorKind::{
            Conflict, Denied, Invalid, NotFound, Throttled, Timeout, Unavailable, Unexpected,
            Unsupported,
        };
        use RDKafkaErrorCode as Code;
        &[
            (Code::MessageTimedOut, Timeout, Maybe, Unknown),
            (Code::OperationTimedOut, Timeout, Maybe, Unknown),
            (Code::TimedOutQueue, Timeout, Maybe, Unknown),
            (Code::RequestTimedOut, Timeout, Maybe, Unknown),
            (Code::QueueFull, Throttled, Maybe, NotApplied),
            (Code::ThrottlingQuotaExceeded, Throttled, Maybe, NotApplied),
            (Code::MessageSizeTooLarge, Invalid, Never, NotApplied),
            (Code::InvalidMessageSize, Invalid, Never, NotApplied),
            (Code::MessageBatchTooLarge, Invalid, Never, NotApplied),
            (Code::InvalidTopic, Invalid, Never, NotApplied),
            (Code::InvalidRecord, Invalid, Never, NotApplied),
            (Code::PolicyViolation, Invalid, Never, NotApplied),
            (Code::InvalidReplicationFactor, Invalid, Never, NotApplied),
            (Code::InvalidPartitions, Invalid, Never, NotApplied),
            (Code::InvalidConfig, Invalid, Never, NotApplied),
            (Code::TopicAuthorizationFailed, Denied, Never, NotApplied),
            (Code::GroupAuthorizationFailed, Denied, Never, NotApplied),
            (Code::ClusterAuthorizationFailed, Denied, Never, NotApplied),
            (
                Code::TransactionalIdAuthorizationFailed,
                Denied,
                Never,
                NotApplied,
            ),
            (Code::SaslAuthenticationFailed, Denied, Never, NotApplied),
            (Code::Authentication, Denied, Never, NotApplied),
            (Code::UnsupportedSASLMechanism, Denied, Never, NotApplied),
            (Code::IllegalSASLState, Denied, Never, NotApplied),
            (Code::SecurityDisabled, Denied, Never, NotApplied),
            (Code::SSL, Denied, Never, NotApplied),
            (Code::UnknownTopic, NotFound, Never, NotApplied),
            (Code::UnknownPartition, NotFound, Never, NotApplied),
            (Code::UnknownTopicOrPartition, NotFound, Never, NotApplied),
            (Code::UnsupportedFeature, Unsupported, Never, NotApplied),
            (Code::UnsupportedVersion, Unsupported, Never, NotApplied),
            (Code::NotEnoughReplicas, Unavailable, Maybe, NotApplied),
            (Code::ISRInsufficient, Unavailable, Maybe, NotApplied),
            (
                Code::NotEnoughReplicasAfterAppend,
                Unavailable,
                Maybe,
                Unknown,
            ),
            (Code::LeaderNotAvailable, Unavailable, Maybe, NotApplied),
            (Code::NotLeaderForPartition, Unavailable, Maybe, NotApplied),
            (Code::BrokerNotAvailable, Unavailable, Maybe, NotApplied),
            (Code::PurgeQueue, Unavailable, Maybe, NotApplied),
            (Code::PurgeInflight, Unavailable, Maybe, Unknown),
            (Code::Fatal, Unavailable, Maybe, Unknown),
            (Code::Fenced, Unavailable, Maybe, Unknown),
            (Code::OutOfOrderSequenceNumber, Unavailable, Maybe, Unknown),
            (Code::InvalidProducerEpoch, Unavailable, Maybe, Unknown),
            (Code::ProducerFenced, Unavailable, Maybe, Unknown),
            (Code::UnknownProducerId, Unavailable, Maybe, Unknown),
            (Code::GaplessGuarantee, Unavailable, Maybe, Unknown),
            (Code::BrokerTransportFailure, Unavailable, Maybe, Unknown),
            (Code::NetworkException, Unavailable, Maybe, Unknown),
            (Code::AllBrokersDown, Unavailable, Maybe, Unknown),
            (Code::Resolve, Unavailable, Maybe, Unknown),
            (Code::KafkaStorageError, Unavailable, Maybe, Unknown),
            (Code::WaitingForCoordinator, Unavailable, Maybe, NotApplied),
            (
                Code::CoordinatorLoadInProgress,
                Unavailable,
                Maybe,
                NotApplied,
            ),
            (
                Code::CoordinatorNotAvailable,
                Unavailable,
                Maybe,
                NotApplied,
            ),
            (Code::NotCoordinator, Unavailable, Maybe, NotApplied),
            (Code::RebalanceInProgress, Unavailable, Maybe, NotApplied),
            (Code::InconsistentGroupProtocol, Conflict, Never, NotApplied),
            (Code::InvalidTimestamp, Unexpected, Never, Unknown),
        ]
    };

    #[test]
    fn every_code_has_its_meaning() {
        for &(code, kind, retry, outcome) in ROWS {
            let source = KafkaError::MessageProduction(code);
            let deadline = DEADLINE;
            let error = port_error("publish", Failure::Delivery { source, deadline });
            let meaning = (error.kind(), error.retryable(), error.outcome());
            assert_eq!(meaning, (kind, retry, outcome), "{code:?}");
            assert!(error.source().is_some(), "{code:?}");
        }
    }

    #[test]
    fn every_code_is_named_in_the_message() {
        for &(code, ..) in ROWS {
            let source = || KafkaError::MessageProduction(code);
            let (topic, deadline) = (|| "tasks".to_owned(), DEADLINE);
            for failure in [
                Failure::Enqueue(source()),
                Failure::Request(source()),
                Failure::Delivery {
                    source: source(),
                    deadline,
                },
                Failure::Topic {
                    topic: topic(),
                    code,
                },
                Failure::NotCreated {
                    topic: topic(),
                    code,
                },
            ] {
                let message = port_error("publish", failure).to_string();
                let name = format!(": {code:?}: ");
                assert!(message.contains(&name), "{message}");
            }
        }
    }

    #[test]
    fn a_group_of_two_minds_is_told_our_strategy_and_the_setting_of_the_other() {
        let code = RDKafkaErrorCode::InconsistentGroupProtocol;
        let source = KafkaError::MessageConsumption(code);
        let message = port_error("subscribe", Failure::Request(source)).to_string();
        let ours = format!("partition.assignment.strategy to {STRATEGY} ");
        assert!(message.contains(&ours), "{message}");
    }

    #[test]
    fn an_event_that_did_not_leave_and_a_request_changed_nothing() {
        for &(code, kind, retry, _) in ROWS {
            let source = || KafkaError::MessageProduction(code);
            for failure in [Failure::Enqueue(source()), Failure::Request(source())] {
                let error = port_error("publish", failure);
                let meaning = (error.kind(), error.retryable(), error.outcome());
                assert_eq!(meaning, (kind, retry, NotApplied), "{code:?}");
            }
        }
    }

    #[test]
    fn a_late_acknowledgement_names_the_limit() {
        let source = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        let deadline = DEADLINE;
        let error = port_error("publish", Failure::Delivery { source, deadline });
        assert_eq!(
            error.to_string(),
            "kafka publish: timeout: MessageTimedOut: the event was not acknowledged within 1500 ms (outcome unknown)"
        );
    }

    #[test]
    fn every_other_failure_has_its_meaning() {
        use ErrorKind::{Denied, NotFound, Timeout, Unavailable};
        let refused = |sent| Failure::Refused {
            reason: "wrong password".to_owned(),
            sent,
        };
        let code = RDKafkaErrorCode::LeaderNotAvailable;
        let topic = || "tasks".to_owned();
        let not_joined = Failure::NotJoined {
            group: "g".to_owned(),
            limit: DEADLINE,
        };
        let group = || "g".to_owned();
        let no_position = Failure::NoPosition {
            group: group(),
            topic: topic(),
        };
        let has_members = Failure::HasMembers {
            group: group(),
            members: 2,
        };
        for (failure, kind, retry, outcome) in [
            (Failure::NoTopic(topic()), NotFound, Never, NotApplied),
            (no_position, NotFound, Never, NotApplied),
            (has_members, ErrorKind::Conflict, Never, NotApplied),
            (
                Failure::Topic {
                    topic: topic(),
                    code,
                },
                Unavailable,
                Maybe,
                NotApplied,
            ),
            (refused(Sent::Perhaps), Denied, Never, Unknown),
            (refused(Sent::Nothing), Denied, Never, NotApplied),
            (not_joined, Timeout, Maybe, NotApplied),
            (Failure::Closed, Unavailable, Maybe, NotApplied),
        ] {
            let text = failure.to_string();
            let error = port_error("check", failure);
            let meaning = (error.kind(), error.retryable(), error.outcome());
            assert_eq!(meaning, (kind, retry, outcome), "{text}");
            assert!(error.to_string().contains(&text), "{error}");
        }
    }

    #[test]
    fn a_refused_setting_is_named_and_its_value_is_not() {
        let source = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "invalid value hunter2".to_owned(),
            "sasl.password".to_owned(),
            "hunter2".to_owned(),
        );
        let error = port_error("open", Failure::Client(source));
        assert_eq!(
            error.to_string(),
            "kafka open: invalid: librdkafka refuses the configuration: sasl.password"
        );
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
