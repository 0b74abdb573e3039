"""Celery workers as processes of their own, and this process as their client."""

import contextlib
import datetime
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import amqp
import pytest
from celery import chain, chord, group

from conftest import FOLDER

PATIENCE_S = 90


class Application:
    """The application under names of its own, its workers, and what they wrote down."""

    def __init__(self, folder, kind):
        self.folder = folder
        self.name = f"test-{kind}-{uuid.uuid4().hex[:12]}"
        self.workers = []
        os.environ["WARREN_TEST_CELERY"], os.environ["WARREN_TEST_FOLDER"] = self.name, str(folder)
        sys.modules.pop("celery_app", None)
        self.tasks = importlib.import_module("celery_app")
        self.app = self.tasks.app

    def worker(self, *options, pool="solo", answers=True):
        """Starts a worker, and waits until it answers: a solo one that has a task at once does not."""
        node = f"{uuid.uuid4().hex[:6]}@{self.name}"
        log = open(self.folder / f"{node}.log", "w")
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", pool, "--concurrency", "1", "-n", node,
             "--loglevel", "INFO", "--heartbeat-interval", "1", *options],
            cwd=FOLDER / "programs", stdout=log, stderr=log, start_new_session=True)
        worker.node = node
        self.workers.append(worker)
        if answers:
            self.until(lambda: self.app.control.ping([node], timeout=1, limit=1), f"{node} answers")
        return worker

    def until(self, true, what):
        deadline = time.monotonic() + PATIENCE_S
        while not (value := true()):
            assert time.monotonic() < deadline, f"never came: {what}\n{self.logs()}"
            time.sleep(0.05)
        return value

    def logs(self):
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))

    def notes(self):
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def release(self):
        (self.folder / "release").touch()

    def get(self, result):
        return result.get(timeout=PATIENCE_S)

    def end(self):
        self.release()
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        with contextlib.suppress(Exception), self.app.connection_for_write() as connection:
            connection.default_channel.queue_delete(self.name)
        self.app.close()


@pytest.fixture
def application(tmp_path, request):
    application = Application(tmp_path, getattr(request, "param", "classic"))
    yield application
    application.end()


def test_tasks_and_their_results(application):
    application.worker()
    tasks = application.tasks
    assert [application.get(tasks.add.delay(number, 1)) for number in range(10)] == list(range(1, 11))
    with pytest.raises(ValueError, match="the text"):
        application.get(tasks.fail.delay("the text"))
    assert application.get(chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))()) == 10
    assert application.get(group(tasks.add.s(number, number) for number in range(5))()) == [0, 2, 4, 6, 8]
    # A large argument, and many at once.
    assert application.get(tasks.add.delay("x" * 500_000, "y")) == "x" * 500_000 + "y"
    results = [tasks.add.delay(number, 0) for number in range(50)]
    assert [application.get(result) for result in results] == list(range(50))


def test_chords_are_refused_by_the_rpc_backend(application):
    # Replies go to the caller's queue: no worker can count them.
    with pytest.raises(NotImplementedError):
        chord([application.tasks.add.s(1, 1)])(application.tasks.total.s())


def test_retries_and_countdowns(application):
    application.worker()
    tasks = application.tasks
    assert application.get(tasks.flaky.delay("task")) == 2
    assert application.notes() == ["task 0", "task 1", "task 2"]
    begun = time.monotonic()
    assert application.get(tasks.add.apply_async((1, 1), countdown=1)) == 2
    assert 0.9 <= time.monotonic() - begun
    eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=0.5)
    assert application.get(tasks.add.apply_async((1, 1), eta=eta)) == 2


def test_priorities(application):
    for priority in [1, 9, 5]:
        application.tasks.note.apply_async((priority,), priority=priority)
    application.worker()
    application.until(lambda: len(application.notes()) == 3, "three notes")
    assert application.notes() == ["9", "5", "1"]


def test_a_killed_workers_task_comes_again(application):
    first = application.worker()
    result = application.tasks.patient.delay("task")
    application.until(application.notes, "the task begins")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    application.worker(answers=False)
    application.until(lambda: len(application.notes()) == 2, "the task begins again")
    assert application.notes()[0].endswith("False")
    assert application.notes()[1].endswith("True")
    application.release()
    assert application.get(result) == "task"


def test_a_task_whose_process_was_killed_comes_again(application):
    """reject_on_worker_lost: the worker lives, its child does not."""
    application.worker(pool="prefork")
    result = application.tasks.patient.delay("task")
    begun = application.until(application.notes, "the task begins")
    os.kill(int(begun[0].split()[2]), signal.SIGKILL)
    application.until(lambda: len(application.notes()) == 2, "the task begins again")
    application.release()
    assert application.get(result) == "task"


def test_a_warm_shutdown_ends_the_task_first(application):
    worker = application.worker(pool="prefork")
    result = application.tasks.patient.delay("task")
    application.until(application.notes, "the task begins")
    worker.send_signal(signal.SIGTERM)
    application.until(lambda: "Warm shutdown" in application.logs(), "the word")
    application.release()
    assert worker.wait(timeout=PATIENCE_S) == 0
    assert application.get(result) == "task"
    assert application.notes()[-1] == "task ends"


def test_remote_control(application):
    worker = application.worker(pool="prefork")
    control = application.app.control
    node = worker.node
    inspect = control.inspect([node], timeout=5, limit=1)
    assert control.ping([node], timeout=5, limit=1) == [{node: {"ok": "pong"}}]
    assert "celery_app.add" in application.until(inspect.registered, "the tasks")[node]
    assert application.until(inspect.stats, "the numbers")[node]["pid"] == worker.pid
    assert application.until(inspect.active_queues, "the queues")[node][0]["name"] == application.name
    application.tasks.patient.delay("first")
    application.until(lambda: len(application.until(inspect.active, "what runs")[node]) == 1, "a task runs")
    waiting = application.tasks.note.delay("revoked")
    control.revoke(waiting.id)
    application.until(lambda: waiting.id in application.until(inspect.revoked, "the revoked")[node], "it is revoked")
    answer = control.rate_limit("celery_app.add", "100/s", destination=[node], reply=True, timeout=5, limit=1)
    assert answer == [{node: {"ok": "new rate limit set successfully"}}]
    application.release()
    last = application.tasks.note.delay("last")
    assert application.get(last) == "last"
    assert "revoked" not in application.notes()
    control.shutdown(destination=[node])
    assert worker.wait(timeout=PATIENCE_S) == 0


def test_events(application):
    seen = []
    wanted = {"task-sent", "task-received", "task-started", "task-succeeded", "worker-heartbeat"}

    def listen():
        with application.app.connection_for_read() as connection:
            def receive(event):
                seen.append(event)
                receiver.should_stop = wanted <= {event["type"] for event in seen}
            # Its queue goes with its consumer, so it is asked once.
            receiver = application.app.events.Receiver(connection, handlers={"*": receive})
            receiver.capture(limit=None, timeout=PATIENCE_S, wakeup=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    application.worker("-E")
    application.until(lambda: any(event["type"] == "worker-heartbeat" for event in seen), "a heartbeat")
    application.get(application.tasks.add.delay(1, 1))
    thread.join(PATIENCE_S)
    assert wanted <= {event["type"] for event in seen}


def test_two_workers_find_each_other(application):
    first, second = application.worker(), application.worker()
    # Mingle asks by remote control, gossip hears the other's events.
    application.until(lambda: "mingle: sync complete" in application.logs(), "mingle")
    application.until(lambda: f"{second.node} joined the party" in application.logs() or "sync with 1 nodes" in application.logs(), "gossip")
    assert len(application.app.control.ping(timeout=5, limit=2)) == 2
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=PATIENCE_S) == 0
    assert application.get(application.tasks.add.delay(1, 1)) == 2
    assert first.poll() is None


def test_control_queues_go_with_their_owners(application):
    """A worker's own is exclusive, a caller's expires."""
    worker = application.worker()
    with application.app.connection_for_read() as connection:
        def state(queue):
            try:
                connection.channel().queue_declare(queue, passive=True)
            except amqp.ResourceLocked:
                return "locked"
            except amqp.NotFound:
                return "gone"
            return "there"
        own = f"{worker.node}.{application.name}-control.pidbox"
        assert state(own) == "locked"
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        application.until(lambda: state(own) == "gone", f"{own} goes")
        # With nobody who consumes from it.
        replies = application.app.control.mailbox.reply_queue(connection.channel())
        replies.declare()
        assert state(replies.name) == "there"
        # Looking at it would be a use of it. A message that comes back is none.
        channel, returned = connection.channel(), []
        channel.events["basic_return"].add(lambda *arguments: returned.append(arguments))

        def is_gone():
            channel.basic_publish(amqp.Message("x"), "", replies.name, mandatory=True)
            channel.queue_declare(own + "-other", exclusive=True)
            return returned
        application.until(is_gone, f"{replies.name} goes")


def test_a_worker_survives_a_restart_of_the_broker(application):
    worker = application.worker()
    assert application.get(application.tasks.add.delay(1, 1)) == 2
    subprocess.run(os.environ["WARREN_TEST_RESTART"], shell=True, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)
    application.until(lambda: _answers(application, worker.node), "the worker answers again")
    application.tasks.note.apply_async(("after",), retry=True)
    application.until(lambda: application.notes() == ["after"], "the task after")


def _answers(application, node):
    with contextlib.suppress(OSError, *application.app.connection().connection_errors):
        return application.app.control.ping([node], timeout=1, limit=1)


@pytest.mark.parametrize("application", ["quorum"], indirect=True)
def test_countdowns_on_quorum_queues(application):
    """The broker keeps the task meanwhile, and not the worker."""
    application.worker()
    begun = time.monotonic()
    result = application.tasks.add.apply_async((1, 1), countdown=2)
    assert application.get(result) == 2
    assert 1.9 <= time.monotonic() - begun
    assert application.get(application.tasks.add.delay(2, 2)) == 4
