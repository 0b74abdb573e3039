"""The README's Python is run as it stands; only the address is another."""

import pathlib
import re

import pika

from conftest import URL

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_the_readmes_python(channel, monkeypatch, capsys):
    channel.queue_delete("tasks")
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    connect = pika.BlockingConnection
    monkeypatch.setattr(pika, "BlockingConnection", lambda: connect(pika.URLParameters(URL)))
    exec(code, {})
    assert capsys.readouterr().out == "b'hello'\n"
    channel.queue_delete("tasks")
