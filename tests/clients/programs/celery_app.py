"""A small Celery application: AMQP broker, replies over rpc://."""

import os
import pathlib
import time

from celery import Celery
from kombu import Exchange, Queue

from common import URL

# Each test has queues of its own: its workers are nobody else's.
NAME = os.environ.get("WARREN_TEST_CELERY", "test-celery")
FOLDER = pathlib.Path(os.environ.get("WARREN_TEST_FOLDER", "."))

app = Celery("small", broker=URL, backend="rpc://")
app.conf.update(
    task_default_queue=NAME,
    # Only a topic exchange takes the keys of countdowns on quorum queues.
    task_queues=[
        Queue(NAME, Exchange(NAME, "topic"), NAME, queue_arguments={"x-queue-type": "quorum"})
        if "quorum" in NAME
        else Queue(NAME, Exchange(NAME, "direct"), NAME, max_priority=10),
    ],
    control_exchange=f"{NAME}-control",
    event_exchange=f"{NAME}-events",
    task_default_exchange=NAME,
    task_default_exchange_type="topic" if "quorum" in NAME else "direct",
    task_default_routing_key=NAME,
    worker_prefetch_multiplier=1,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_send_task_events=True,
    task_send_sent_event=True,
    task_track_started=True,
    worker_hijack_root_logger=False,
    control_queue_expires=1.0,
    result_expires=300,
)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def note(word):
    """Writes a word down, in order."""
    with open(FOLDER / "notes", "a") as notes:
        notes.write(f"{word}\n")
    return word


@app.task
def fail(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=3)
def flaky(self, name):
    """Succeeds at the third attempt."""
    note(f"{name} {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def patient(self, name):
    """Waits for the file `release`."""
    note(f"{name} begins {os.getpid()} {bool(self.request.delivery_info['redelivered'])}")
    while not (FOLDER / "release").exists():
        time.sleep(0.02)
    note(f"{name} ends")
    return name
