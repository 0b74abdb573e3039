"""The broker under test is named by WARREN_TEST_AMQP_URL; the same tests run on Warren and on RabbitMQ."""

import contextlib
import os
import pathlib
import queue
import subprocess
import sys
import threading
import uuid

import pika
import pytest

URL = os.environ["WARREN_TEST_AMQP_URL"]
PROGRAMS = pathlib.Path(__file__).parent / "programs"
# A loaded machine takes more than 20 s to start a Python program beside a broker that starts.
PATIENCE_S = 90


def parameters():
    """Those of the URL, with pika's own timeouts no shorter than our patience."""
    parameters = pika.URLParameters(URL)
    parameters.socket_timeout = parameters.stack_timeout = PATIENCE_S
    return parameters


class Program:
    """One of the programs, running."""

    def __init__(self, name, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(PROGRAMS / f"{name}.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def line(self):
        """The next line it prints."""
        return self.lines.get(timeout=PATIENCE_S)

    def expect(self, *lines):
        assert [self.line() for _ in lines] == list(lines)

    def silent(self):
        return self.lines.empty()

    def tell(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def finish(self):
        assert self.process.wait(timeout=PATIENCE_S) == 0


@pytest.fixture
def start():
    """Starts programs, and kills those that still run when the test ends."""
    programs = []

    def start(name, *arguments):
        programs.append(Program(name, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


@pytest.fixture
def connect():
    """Opens connections, and closes them when the test ends."""
    connections = []

    def connect(**changes):
        changed = parameters()
        for name, value in changes.items():
            setattr(changed, name, value)
        connections.append(pika.BlockingConnection(changed))
        return connections[-1]

    yield connect
    for connection in connections:
        if connection.is_open:
            with contextlib.suppress(pika.exceptions.AMQPError):
                connection.close()


@pytest.fixture
def channel(connect):
    return connect().channel()


@pytest.fixture
def name():
    """A name that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def clean(connect):
    """Deletes what the tutorials leave behind, before and after."""

    def delete():
        channel = connect().channel()
        for queue_name in ["hello", "task_queue", "rpc_queue"]:
            channel.queue_delete(queue_name)
        for exchange in ["logs", "direct_logs", "topic_logs"]:
            channel.exchange_delete(exchange)

    delete()
    yield
    delete()


def take(channel, queue_name, count):
    """Consumes `count` messages with automatic acknowledgement: their bodies."""
    bodies = []
    for method, _, body in channel.consume(queue_name, auto_ack=True, inactivity_timeout=PATIENCE_S):
        assert method is not None, f"only {len(bodies)} of {count} messages came"
        bodies.append(body.decode())
        if len(bodies) == count:
            break
    channel.cancel()
    return bodies


def wait_for_count(channel, queue_name, count):
    """Waits until so many messages are ready."""
    for _ in range(PATIENCE_S * 100):
        if channel.queue_declare(queue_name, passive=True).method.message_count == count:
            return
        channel.connection.sleep(0.01)
    raise AssertionError(f"{queue_name} never held {count} messages")
