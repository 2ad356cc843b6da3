"""A sidecar's part on a stream, as pubsub.redis of Dapr plays it, by redis-py.

Group and consumer have one name, the app id. Texts are printed as a line of JSON each.

redis_stream.py URL publish STREAM FILE          appends the fields of each line of a captured stream
redis_stream.py URL send STREAM FIELD VALUE...   appends one entry
redis_stream.py URL consume STREAM GROUP COUNT   reads so many new entries, acknowledges them, prints their data
redis_stream.py URL read STREAM GROUP COUNT      the same, but acknowledges nothing
redis_stream.py URL reclaim STREAM GROUP IDLE    claims what is pending for so many ms from any consumer,
                                                 acknowledges it, prints its data
"""

import json
import sys

import redis


def publish(store, stream, path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            send(store, stream, *json.loads(line)["fields"])


def send(store, stream, *fields):
    store.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))


def consume(store, stream, group, count):
    for entry_id in read(store, stream, group, count):
        store.xack(stream, group, entry_id)


def read(store, stream, group, count):
    try:
        store.xgroup_create(stream, group, id="0", mkstream=True)
    except redis.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
    left, ids = int(count), []
    while left > 0:
        for _, entries in store.xreadgroup(group, group, {stream: ">"}, count=left, block=10_000):
            ids += show(entries)
            left -= len(entries)
    return ids


def reclaim(store, stream, group, idle):
    pending = store.xpending_range(stream, group, "-", "+", 100)
    ids = [entry["message_id"] for entry in pending if entry["time_since_delivered"] >= int(idle)]
    if ids:
        for entry_id in show(store.xclaim(stream, group, group, int(idle), ids)):
            store.xack(stream, group, entry_id)


def show(entries):
    for _, fields in entries:
        print(json.dumps(fields["data"]))
    return [entry_id for entry_id, _ in entries]


COMMANDS = {"publish": publish, "send": send, "consume": consume, "read": read, "reclaim": reclaim}


def main():
    if len(sys.argv) < 3 or sys.argv[2] not in COMMANDS:
        sys.exit(__doc__)
    _, url, command, *arguments = sys.argv
    with redis.Redis.from_url(url, decode_responses=True) as store:
        COMMANDS[command](store, *arguments)


if __name__ == "__main__":
    main()
