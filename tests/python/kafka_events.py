"""Events of tasks on Kafka, by confluent-kafka.

kafka_events.py BOOTSTRAP produce TOPIC EVENT...
    produces bare events as the replaced service does: JSON texts, keyed by their task_id
kafka_events.py BOOTSTRAP envelope TOPIC EVENT...
    produces the same events in CloudEvents envelopes, as Dapr writes them
kafka_events.py BOOTSTRAP consume TOPIC COUNT [GROUP]
    prints that many messages as JSON lines with key, partition, offset, headers and value; without a
    group from the beginning, with one from where the group is, and commits
kafka_events.py BOOTSTRAP commit TOPIC GROUP PARTITION=OFFSET...
    commits these offsets for a group that has no members
kafka_events.py BOOTSTRAP all TOPIC
    prints every message that the topic has now, one partition after the other
"""

import json
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

SECONDS = 60


def produce(bootstrap, topic, *events):
    parsed = [json.loads(event) for event in events]
    send(bootstrap, topic, [(event["task_id"], event) for event in parsed])


def envelope(bootstrap, topic, *events):
    parsed = [json.loads(event) for event in events]
    send(bootstrap, topic, [(event["task_id"], in_envelope(topic, event)) for event in parsed])


def in_envelope(topic, event):
    return {
        "data": event,
        "datacontenttype": "application/json",
        "id": str(uuid.uuid4()),
        "pubsubname": "pubsub",
        "source": "task-api",
        "specversion": "1.0",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "topic": topic,
        "type": "com.dapr.event.sent",
    }


def send(bootstrap, topic, messages):
    failures = []

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    producer = Producer({"bootstrap.servers": bootstrap})
    for key, value in messages:
        producer.produce(topic, key=key, value=json.dumps(value), on_delivery=delivered)
    left = producer.flush(SECONDS)
    if left or failures:
        sys.exit(f"{left} not delivered, failures: {failures}")


def consume(bootstrap, topic, count, group=None):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group or f"python-{uuid.uuid4()}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    consumer.subscribe([topic])
    deadline = time.monotonic() + SECONDS
    seen = 0
    while seen < int(count):
        if time.monotonic() > deadline:
            sys.exit(f"{seen} of {count} messages within {SECONDS} s")
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        seen += 1
        print(json.dumps(line(message)))
        if group:
            consumer.commit(message, asynchronous=False)
    consumer.close()


def commit(bootstrap, topic, group, *positions):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
    })
    pairs = [position.split("=") for position in positions]
    offsets = [TopicPartition(topic, int(partition), int(offset)) for partition, offset in pairs]
    for committed in consumer.commit(offsets=offsets, asynchronous=False):
        if committed.error:
            raise KafkaException(committed.error)
    consumer.close()


def everything(bootstrap, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"python-{uuid.uuid4()}"})
    metadata = consumer.list_topics(topic, timeout=SECONDS)
    deadline = time.monotonic() + SECONDS
    for partition in metadata.topics[topic].partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS)
        consumer.assign([TopicPartition(topic, partition, low)])
        while low < high:
            if time.monotonic() > deadline:
                sys.exit(f"partition {partition} is at {low} of {high} after {SECONDS} s")
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            low = message.offset() + 1
            print(json.dumps(line(message)))
    consumer.close()


def line(message):
    return {
        "key": text(message.key()),
        "partition": message.partition(),
        "offset": message.offset(),
        "headers": {name: text(value) for name, value in message.headers() or []},
        "value": text(message.value()),
    }


def text(value):
    return None if value is None else value.decode()


COMMANDS = {"produce": produce, "envelope": envelope, "consume": consume, "commit": commit, "all": everything}


def main():
    if len(sys.argv) < 4 or sys.argv[2] not in COMMANDS:
        sys.exit(__doc__)
    _, bootstrap, command, *arguments = sys.argv
    COMMANDS[command](bootstrap, *arguments)


if __name__ == "__main__":
    main()
