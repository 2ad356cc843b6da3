"""The Task API as a Python service has it on Dapr: FastAPI, pydantic and the SDK. The benches compare with it.

task_service.py PORT request|shared
    serves on loopback beside the sidecar of DAPR_HTTP_PORT and DAPR_GRPC_PORT, and prints where; `request` opens a
    DaprClient for each request, as the examples of the SDK do, `shared` keeps one for all
"""

import json
import sys
import uuid
from contextlib import contextmanager
from datetime import datetime, timezone
from enum import Enum

import uvicorn
from dapr.clients import DaprClient
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field

STORE = "statestore"
PUBSUB = "pubsub"
TOPIC = "task-events"


class Status(str, Enum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


class Draft(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    description: str | None = None
    priority: int = Field(default=1, ge=1, le=5)


class Task(BaseModel):
    id: str
    title: str
    description: str | None = None
    status: Status = Status.PENDING
    priority: int = 1
    created_at: datetime
    updated_at: datetime


app = FastAPI(title="Task API")
received = 0


@contextmanager
def one_for_each_request():
    with DaprClient() as client:
        yield client


@contextmanager
def one_for_all():
    yield app.state.client


def key(task_id):
    return f"task-{task_id}"


def now():
    return datetime.now(timezone.utc)


def load(client, task_id):
    response = client.get_state(STORE, key(task_id))
    if not response.data:
        raise HTTPException(status_code=404, detail="Task not found")
    return Task.model_validate_json(response.data), response.etag


def publish(client, event_type, task):
    event = {
        "event_type": event_type,
        "task_id": task.id,
        "title": task.title,
        "status": task.status.value,
        "timestamp": now().isoformat(),
    }
    client.publish_event(PUBSUB, TOPIC, json.dumps(event), data_content_type="application/json")


@app.post("/tasks", status_code=201)
def create_task(draft: Draft) -> Task:
    at = now()
    task = Task(id=str(uuid.uuid4()), created_at=at, updated_at=at, **draft.model_dump())
    with app.state.opened() as client:
        client.save_state(STORE, key(task.id), task.model_dump_json())
        publish(client, "task.created", task)
    return task


@app.get("/tasks/{task_id}")
def get_task(task_id: str) -> Task:
    with app.state.opened() as client:
        return load(client, task_id)[0]


@app.put("/tasks/{task_id}/status")
def update_status(task_id: str, status: Status) -> Task:
    with app.state.opened() as client:
        task, etag = load(client, task_id)
        task.status = status
        task.updated_at = now()
        client.save_state(STORE, key(task_id), task.model_dump_json(), etag=etag)
        publish(client, f"task.{status.value}", task)
    return task


@app.delete("/tasks/{task_id}", status_code=204)
def delete_task(task_id: str) -> Response:
    with app.state.opened() as client:
        load(client, task_id)
        client.delete_state(STORE, key(task_id))
    return Response(status_code=204)


@app.post("/events/task-events")
def handle_event(envelope: dict):
    event = envelope["data"]
    if event["event_type"] == "task.completed":
        message = {
            "type": "task_completed",
            "task_id": event["task_id"],
            "message": f"Task {event['task_id']} has been completed",
        }
        with app.state.opened() as client:
            client.invoke_method("notification-service", "notify", json.dumps(message), http_verb="POST")
    global received
    received += 1
    return {"status": "SUCCESS"}


@app.get("/health")
def health():
    return {"status": "healthy"}


@app.get("/ready")
def ready():
    return {"status": "ready", "events": received}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in ("request", "shared"):
        sys.exit(__doc__)
    _, port, clients = sys.argv
    app.state.opened = one_for_each_request if clients == "request" else one_for_all
    if clients == "shared":
        app.state.client = DaprClient()
    print(f"the Python service on http://127.0.0.1:{port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    main()
