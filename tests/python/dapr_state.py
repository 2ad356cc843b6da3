"""Tasks and events as a Python service has them on Dapr, by the SDK: `task-{id}` in `statestore`, `task-events` on `pubsub`.

dapr_state.py HTTP_PORT GRPC_PORT save TASK [ETAG]
    stores a task, a JSON text with an id; with an ETag only over that version
dapr_state.py HTTP_PORT GRPC_PORT get ID...
    prints a line of JSON for each id: the task, null if there is none, and its ETag
dapr_state.py HTTP_PORT GRPC_PORT update ID FIELD=VALUE...
    reads a task, sets texts in it and stores all of it over the version that was read
dapr_state.py HTTP_PORT GRPC_PORT delete ID [ETAG]
dapr_state.py HTTP_PORT GRPC_PORT publish TOPIC EVENT...
    publishes bare events, JSON texts, in Dapr's own envelope
dapr_state.py HTTP_PORT GRPC_PORT receive TOPIC COUNT
    prints that many events as lines of JSON with id, type, source and data

A token comes from DAPR_API_TOKEN.
"""

import json
import sys

from dapr.clients import DaprClient
from dapr.conf import settings

STORE = "statestore"
PUBSUB = "pubsub"


def key(task_id):
    return f"task-{task_id}"


def save(client, text, etag=None):
    store(client, json.loads(text), etag)


def store(client, task, etag):
    client.save_state(STORE, key(task["id"]), json.dumps(task), etag=etag)


def load(client, task_id):
    response = client.get_state(STORE, key(task_id))
    return json.loads(response.data) if response.data else None, response.etag


def get(client, *ids):
    for task_id in ids:
        task, etag = load(client, task_id)
        print(json.dumps({"task": task, "etag": etag}))


def update(client, task_id, *changes):
    task, etag = load(client, task_id)
    if task is None:
        sys.exit(f"there is no task {task_id}")
    task.update(change.split("=", 1) for change in changes)
    store(client, task, etag)


def delete(client, task_id, etag=None):
    client.delete_state(STORE, key(task_id), etag=etag)


def publish(client, topic, *events):
    for event in events:
        client.publish_event(PUBSUB, topic, event, data_content_type="application/json")


def receive(client, topic, count):
    subscription = client.subscribe(PUBSUB, topic)
    for _ in range(int(count)):
        event = subscription.next_message()
        print(json.dumps({
            "id": event.id(),
            "type": event.type(),
            "source": event.source(),
            "data": event.data(),
        }), flush=True)
        subscription.respond_success(event)
    subscription.close()


COMMANDS = {
    "save": save,
    "get": get,
    "update": update,
    "delete": delete,
    "publish": publish,
    "receive": receive,
}


def main():
    if len(sys.argv) < 5 or sys.argv[3] not in COMMANDS:
        sys.exit(__doc__)
    _, http_port, grpc_port, command, *arguments = sys.argv
    settings.DAPR_HTTP_PORT = int(http_port)
    with DaprClient(f"127.0.0.1:{grpc_port}") as client:
        COMMANDS[command](client, *arguments)


if __name__ == "__main__":
    main()
