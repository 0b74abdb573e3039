"""Debian's amqp-tools: librabbitmq, written in C."""

import contextlib
import os
import subprocess
import uuid

import pytest

from conftest import PATIENCE_S, run

URL = os.environ["WARREN_TEST_AMQP_URL"]


def tool(name, *words, **options):
    return run(name, "--url", URL, *words, **options)


@pytest.fixture
def queue():
    name = f"test-{uuid.uuid4().hex[:12]}"
    assert tool("amqp-declare-queue", "-d", "-q", name) == f"{name}\n"
    yield name
    with contextlib.suppress(BaseException):
        tool("amqp-delete-queue", "-q", name)


def test_a_message_goes_in_and_comes_out(queue):
    tool("amqp-publish", "-r", queue, "-p", "-C", "text/plain", "-b", "the body")
    assert tool("amqp-get", "-q", queue) == "the body"
    # It says with 2 that there is none.
    assert subprocess.run(["amqp-get", "--url", URL, "-q", queue], timeout=PATIENCE_S).returncode == 2


def test_lines_become_messages(queue):
    tool("amqp-publish", "-r", queue, "-l", input="one\ntwo\nthree\n")
    assert [tool("amqp-get", "-q", queue) for _ in range(3)] == ["one\n", "two\n", "three\n"]


def test_a_command_for_each_message(queue):
    for number in range(20):
        tool("amqp-publish", "-r", queue, "-b", f"{number},")
    assert tool("amqp-consume", "-q", queue, "-c", "20", "-p", "5", "cat") == "".join(f"{number}," for number in range(20))


def test_a_message_whose_command_fails_stays(queue):
    tool("amqp-publish", "-r", queue, "-b", "kept")
    process = subprocess.Popen(["amqp-consume", "--url", URL, "-q", queue, "sh", "-c", "kill $PPID"])
    process.wait(timeout=PATIENCE_S)
    for _ in range(PATIENCE_S * 20):
        got = subprocess.run(["amqp-get", "--url", URL, "-q", queue], stdout=subprocess.PIPE, timeout=PATIENCE_S)
        if got.returncode == 0:
            break
    assert got.stdout == b"kept"


def test_a_queue_of_the_consumer_s_own():
    exchange = "amq.topic"
    key = uuid.uuid4().hex
    consumer = subprocess.Popen(
        ["amqp-consume", "--url", URL, "-e", exchange, "-r", f"{key}.#", "-x", "-c", "1", "cat"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # What was published before the binding is lost, so it is published until it comes.
    for _ in range(PATIENCE_S * 20):
        tool("amqp-publish", "-e", exchange, "-r", f"{key}.news", "-b", "news")
        with contextlib.suppress(subprocess.TimeoutExpired):
            consumer.wait(timeout=0.05)
            break
    assert consumer.communicate(timeout=PATIENCE_S)[0] == b"news"


def test_a_deleted_queue_says_how_many_messages_it_held(queue):
    for _ in range(3):
        tool("amqp-publish", "-r", queue, "-b", "x")
    assert tool("amqp-delete-queue", "-q", queue).strip() == "3"


def test_errors_are_told(queue):
    failed = subprocess.run(
        ["amqp-get", "--url", URL, "-q", f"nobody-{queue}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S)
    assert failed.returncode == 1
    assert f"NOT_FOUND - no queue 'nobody-{queue}' in vhost '/'" in failed.stdout
