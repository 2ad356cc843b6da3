//! The service on a Kafka that others run: topics that they have made, groups that they have left.

use super::World;

/// No topic is made because it is missing.
const AS_IT_IS: [&str; 2] = ["--kafka-create-partitions", "0"];

#[tokio::test]
async fn a_topic_that_is_missing_is_named_at_the_start_with_what_to_do() {
    let world = World::start().await;
    for missing in ["task-events", "task-events.dead"] {
        let (code, log) = world.refused(&AS_IT_IS);
        assert_eq!(code, Some(2), "{log}");
        let named = format!("topic {missing} does not exist");
        assert!(log.contains(&named), "{log}");
        let advice =
            "make the topics task-events and task-events.dead, or set kafka_create_partitions";
        assert!(log.contains(advice), "{log}");
        world.kafka.create_topic(missing, 1).await;
    }
    let server = world.serve(&AS_IT_IS).await;
    assert!(server.stop().success());
}
