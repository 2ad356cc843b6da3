"""Tasks as the replaced service keeps them: JSON texts under `task:{id}`, by redis-py.

redis_task.py URL write TASK...    stores each task, a JSON text with an id
redis_task.py URL read ID...       prints each task as a line of JSON, null if there is none
redis_task.py URL update ID FIELD=VALUE...
                                   reads a task, sets texts in it and stores all of it, as the service does
redis_task.py URL delete ID...     prints how many there were
redis_task.py URL list             prints the ids, sorted
redis_task.py URL hash ID...       prints each task that Dapr keeps for task-api, null if there is none
"""

import json
import sys

import redis

PREFIX = "task:"


def write(store, *tasks):
    for text in tasks:
        task = json.loads(text)
        store.set(PREFIX + task["id"], json.dumps(task))


def read(store, *ids):
    for task_id in ids:
        print(json.dumps(load(store, task_id)))


def update(store, task_id, *changes):
    task = load(store, task_id)
    if task is None:
        sys.exit(f"there is no task {task_id}")
    task.update(change.split("=", 1) for change in changes)
    write(store, json.dumps(task))


def delete(store, *ids):
    print(sum(store.delete(PREFIX + task_id) for task_id in ids))


def list_ids(store):
    for key in sorted(store.scan_iter(match=PREFIX + "*")):
        print(key.removeprefix(PREFIX))


def read_hash(store, *ids):
    for task_id in ids:
        text = store.hget(f"task-api||task-{task_id}", "data")
        print(json.dumps(json.loads(text) if text else None))


def load(store, task_id):
    text = store.get(PREFIX + task_id)
    return None if text is None else json.loads(text)


COMMANDS = {"write": write, "read": read, "update": update, "delete": delete, "list": list_ids, "hash": read_hash}


def main():
    if len(sys.argv) < 3 or sys.argv[2] not in COMMANDS:
        sys.exit(__doc__)
    _, url, command, *arguments = sys.argv
    with redis.Redis.from_url(url, decode_responses=True) as store:
        COMMANDS[command](store, *arguments)


if __name__ == "__main__":
    main()
