"""The README's Python is run as it stands; only the address is another."""

import pathlib
import re

import pika
import pytest

from conftest import URL

README = pathlib.Path(__file__).parents[2] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a program; what it prints."""
    connect = pika.BlockingConnection
    monkeypatch.setattr(pika, "BlockingConnection", lambda: connect(pika.URLParameters(URL)))

    def run(program):
        exec(program, {})
        return capsys.readouterr().out

    return run


def test_the_first_program(channel, run):
    channel.queue_delete("tasks")
    assert run(PROGRAMS[0]) == "b'hello'\n"
    channel.queue_delete("tasks")


def test_retries_delays_and_streams(channel, run):
    if channel.connection._impl.server_properties["product"] != "Warren":
        # Delayed messages are a plugin there, which Debian does not ship; limits of deliveries are quorum queues'.
        return
    (program,) = PROGRAMS[1:]
    assert run(program) == (
        "b'to nobody' delivery_limit\nb'good morning'\n0 b'ann'\n1 b'ben'\n"
    )
    for queue in ("mails", "broken mails", "sign-ups"):
        channel.queue_delete(queue)
    channel.exchange_delete("later")
