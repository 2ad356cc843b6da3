//! What a dead letter carries beside the event: Kafka's headers, and fields of an entry in a stream.

/// Why it is dead.
pub(crate) const REASON: &str = "x-dead-letter-reason";

/// The topic that the event was published to.
pub(crate) const TOPIC: &str = "x-original-topic";

/// Its place there: the offset in its partition, or the id of the entry.
pub(crate) const OFFSET: &str = "x-original-offset";

/// How often it was delivered.
pub(crate) const DELIVERIES: &str = "x-deliveries";
