"""Bytes that are no AMQP, or come at the wrong time."""

import socket
import struct

import pika
import pytest

from conftest import PATIENCE_S, URL

PARAMETERS = pika.URLParameters(URL)
HEADER = b"AMQP\x00\x00\x09\x01"


class Wire:
    """A socket that knows frames and nothing else."""

    def __init__(self):
        self.socket = socket.create_connection((PARAMETERS.host, PARAMETERS.port), timeout=PATIENCE_S)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def frame(self, kind, channel, payload, end=b"\xce"):
        self.send(struct.pack(">BHI", kind, channel, len(payload)) + payload + end)

    def method(self, channel, class_id, method_id, fields=b""):
        self.frame(1, channel, struct.pack(">HH", class_id, method_id) + fields)

    def read(self):
        """The next frame that is no heartbeat: kind, channel, payload."""
        while True:
            kind, channel, size = struct.unpack(">BHI", self.file.read(7))
            payload = self.file.read(size)
            assert self.file.read(1) == b"\xce"
            if kind != 8:
                return kind, channel, payload

    def expect(self, class_id, method_id):
        kind, _, payload = self.read()
        assert (kind, *struct.unpack(">HH", payload[:4])) == (1, class_id, method_id)
        return payload[4:]

    def closed_with(self):
        """The code of the connection.close that comes next."""
        return struct.unpack(">H", self.expect(10, 50)[:2])[0]

    def open(self):
        self.send(HEADER)
        self.expect(10, 10)
        response = b"\x00guest\x00guest"
        fields = struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(response)) + response + b"\x05en_US"
        self.method(0, 10, 11, fields)
        channel_max, frame_max, heartbeat = struct.unpack(">HIH", self.expect(10, 30))
        self.method(0, 10, 31, struct.pack(">HIH", channel_max, frame_max, 0))
        self.method(0, 10, 40, b"\x01/\x00\x00")
        self.expect(10, 41)
        return self

    def open_channel(self, number=1):
        self.method(number, 20, 10, b"\x00")
        self.expect(20, 11)
        return self

    def end(self, text=b"\0no such text"):
        """Everything up to `text`, or to the end of the stream, however it ends: RabbitMQ resets some."""
        data = b""
        try:
            while text not in data and (piece := self.file.read1()):
                data += piece
        except ConnectionResetError:
            pass
        return data


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire.socket.close()


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"\x00" * 8])
def test_garbage_is_answered_with_our_header(wire, greeting):
    wire.send(greeting)
    assert wire.end() == HEADER


def test_a_header_may_come_in_pieces(wire):
    for byte in HEADER:
        wire.send(bytes([byte]))
    wire.expect(10, 10)


def test_the_server_tells_what_it_can(wire):
    wire.send(HEADER)
    start = wire.expect(10, 10)
    assert start[:2] == b"\x00\x09"
    for text in (b"PLAIN", b"AMQPLAIN", b"en_US", b"publisher_confirms", b"consumer_cancel_notify", b"basic.nack"):
        assert text in start


def test_a_frame_over_the_limit_is_501(wire):
    wire.open()
    wire.send(struct.pack(">BHI", 1, 0, 200_000))
    wire.send(b"x" * 200_001)
    assert wire.closed_with() == 501


def test_a_bad_end_octet_is_501(wire):
    wire.open().frame(1, 1, b"\x00\x14\x00\x0a\x00", end=b"\x00")
    assert wire.closed_with() == 501


def test_a_method_on_a_channel_that_is_not_open_is_504(wire):
    wire.open().method(7, 50, 10, b"\x00\x00\x00\x00" + struct.pack(">I", 0))
    assert wire.closed_with() == 504


def test_a_channel_opened_twice_is_504(wire):
    wire.open().open_channel().method(1, 20, 10, b"\x00")
    assert wire.closed_with() == 504


def test_a_body_out_of_the_blue_is_505(wire):
    wire.open().open_channel().frame(3, 1, b"body")
    assert wire.closed_with() == 505


def test_a_method_instead_of_a_header_is_505(wire):
    wire.open().open_channel()
    wire.method(1, 60, 40, b"\x00\x00\x00\x01q\x00")
    wire.method(1, 60, 40, b"\x00\x00\x00\x01q\x00")
    assert wire.closed_with() == 505


def test_immediate_is_given_back_or_540(wire, connect, name):
    """RabbitMQ has left it out; Warren gives back what nobody takes at once."""
    connection = connect()
    connection.channel().queue_declare(name, exclusive=False, auto_delete=True)
    wire.open().open_channel()
    wire.method(1, 60, 40, b"\x00\x00\x00" + bytes([len(name)]) + name.encode() + b"\x02")
    wire.frame(2, 1, struct.pack(">HHQH", 60, 0, 0, 0))
    if connection._impl.server_properties["product"] == "RabbitMQ":
        assert wire.closed_with() == 540
    else:
        assert wire.expect(60, 50)[:2] == struct.pack(">H", 313)
    connection.channel().queue_delete(name)


def test_a_limit_beyond_the_servers_is_530(wire):
    wire.send(HEADER)
    start = wire.expect(10, 10)
    response = b"\x00guest\x00guest"
    fields = struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(response)) + response + b"\x05en_US"
    wire.method(0, 10, 11, fields)
    wire.expect(10, 30)
    wire.method(0, 10, 31, struct.pack(">HIH", 5000, 131072, 0))
    # Before 3.12 RabbitMQ may reset the connection instead of saying why.
    text = b"NOT_ALLOWED - negotiated channel_max = 5000 is higher than the maximum allowed value (2047)"
    answer = wire.end(text)
    assert text in answer or (not answer and b"Warren" not in start)


def test_after_a_channel_error_everything_is_ignored_until_close_ok(wire):
    wire.open().open_channel()
    wire.method(1, 60, 80, struct.pack(">QB", 9, 0))
    for _ in range(3):
        wire.method(1, 60, 80, struct.pack(">QB", 9, 0))
    close = wire.expect(20, 40)
    assert struct.unpack(">H", close[:2]) == (406,)
    wire.method(1, 20, 41)
    # The number is free again, and nothing else was answered.
    wire.open_channel()


def test_the_server_sends_heartbeats(wire):
    wire.send(HEADER)
    wire.expect(10, 10)
    response = b"\x00guest\x00guest"
    fields = struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(response)) + response + b"\x05en_US"
    wire.method(0, 10, 11, fields)
    wire.expect(10, 30)
    wire.method(0, 10, 31, struct.pack(">HIH", 10, 131072, 1))
    wire.method(0, 10, 40, b"\x01/\x00\x00")
    wire.expect(10, 41)
    assert wire.file.read(8) == b"\x08\x00\x00\x00\x00\x00\x00\xce"
    # We send none: the server gives up on us.
    assert set(wire.end()) <= set(b"\x08\x00\xce")


def test_closing_is_answered(wire):
    wire.open().method(0, 10, 50, b"\x00\xc8\x00\x00\x00\x00\x00")
    wire.expect(10, 51)


def test_many_channels(connect):
    connection = connect()
    channels = [connection.channel() for _ in range(200)]
    assert len({channel.channel_number for channel in channels}) == 200
    for channel in channels:
        channel.queue_declare("", exclusive=True)
