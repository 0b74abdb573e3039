"""Datagrams of UDP and of Unix sockets."""

import os
import socket
import tempfile

from twisted.internet import reactor
from twisted.internet.error import InvalidAddressError, MessageLengthError
from twisted.internet.protocol import ConnectedDatagramProtocol, DatagramProtocol

from heard import Heard, soon
from said import say


class Noted(DatagramProtocol):
    """Notes all, sends back what it gets; some words do more."""

    def __init__(self):
        self.heard = Heard()

    def startProtocol(self):
        self.heard.put("start")

    def datagramReceived(self, data, address):
        self.heard.put("data", data.decode() or "nothing")
        match data:
            case b"fail": raise RuntimeError("expected by a scenario")
            case b"stop": self.transport.stopListening()
            case _ if address: self.transport.write(data, address)

    def connectionRefused(self):
        self.heard.put("refused")

    def stopProtocol(self):
        self.heard.put("stop")


class Client(ConnectedDatagramProtocol):
    def __init__(self):
        self.heard = Heard()

    def startProtocol(self):
        self.heard.put("start")

    def datagramReceived(self, data):
        self.heard.put("data", data.decode())

    def connectionRefused(self):
        self.heard.put("refused")

    def connectionFailed(self, _):
        self.heard.put("failed")

    def stopProtocol(self):
        self.heard.put("stop")


def _listen(protocol):
    return reactor.listenUDP(0, protocol, interface="127.0.0.1")


def _socket():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


async def an_answer():
    server, client = Noted(), Noted()
    port, own = _listen(server), _listen(client)
    client.datagramReceived = lambda data, _: client.heard.put("data", data.decode())
    own.write(b"hello", ("127.0.0.1", port.getHost().port))
    await client.heard.until("data hello")
    await port.stopListening()
    await own.stopListening()
    server.heard.say("server")
    client.heard.say("client")


async def an_empty_one():
    server, client = Noted(), Noted()
    port, own = _listen(server), _listen(client)
    client.datagramReceived = lambda data, _: client.heard.put("bytes", len(data))
    own.write(b"", ("127.0.0.1", port.getHost().port))
    await client.heard.until("bytes 0")
    await port.stopListening()
    await own.stopListening()
    server.heard.say("server")
    client.heard.say("client")


async def it_starts_before_listening_returns():
    server = Noted()
    port = _listen(server)
    server.heard.put("listens")
    await port.stopListening()
    server.heard.say("server")


async def it_stops_after_the_call_that_stops_it():
    server = Noted()
    stopped = _listen(server).stopListening()
    server.heard.put("asked to stop")
    await stopped
    server.heard.say("server")


async def it_stops_once():
    server = Noted()
    port = _listen(server)
    port.stopListening()
    port.stopListening()
    await soon()
    server.heard.say("server")


async def nothing_is_heard_after_stopping():
    server = Noted()
    address = ("127.0.0.1", _listen(server).getHost().port)
    with _socket() as client:
        client.sendto(b"stop", address)
        client.sendto(b"too late", address)
        await server.heard.until("stop")
        await soon()
    server.heard.say("server")


async def a_callback_that_fails():
    server = Noted()
    port = _listen(server)
    with _socket() as client:
        client.sendto(b"fail", ("127.0.0.1", port.getHost().port))
        client.sendto(b"on", ("127.0.0.1", port.getHost().port))
        await server.heard.until("data on")
    await port.stopListening()
    server.heard.say("server")


async def many_at_once():
    server = Noted()
    port = _listen(server)
    with _socket() as client:
        for number in range(50):
            client.sendto(str(number).encode(), ("127.0.0.1", port.getHost().port))
        await server.heard.until("data 49")
    await port.stopListening()
    server.heard.say("server")


async def nobody_is_there():
    client = Noted()
    port = _listen(client)
    with _socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
    port.connect(*address)
    port.write(b"hello")
    # The epoll reactor takes the refusal for the end of the port; the select reactor tells it.
    await client.heard.until("stop")
    client.heard.say("client")


async def nobody_is_told_without_connecting():
    client = Noted()
    port = _listen(client)
    with _socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
    port.write(b"hello", address)
    await soon()
    await port.stopListening()
    client.heard.say("client")


async def connecting_twice():
    port = _listen(Noted())
    port.connect("127.0.0.1", 9)
    try:
        port.connect("127.0.0.1", 10)
    except RuntimeError:
        say("is connected")
    await port.stopListening()


async def what_cannot_be_sent():
    port = _listen(Noted())
    try:
        port.write(b"x" * 70_000, ("127.0.0.1", 9))
    except MessageLengthError:
        say("too long")
    try:
        port.write(b"x")
    except AssertionError:
        say("no address")
    try:
        port.write(b"x", ("::1", 9))
    except InvalidAddressError:
        say("another family")
    port.connect("127.0.0.1", 9)
    try:
        port.write(b"x", ("127.0.0.1", 10))
    except AssertionError:
        say("another peer")
    await port.stopListening()


async def broadcasts_are_not_allowed_at_first():
    port = _listen(Noted())
    say("allowed", port.getBroadcastAllowed())
    port.setBroadcastAllowed(True)
    say("allowed", port.getBroadcastAllowed())
    await port.stopListening()


async def between_unix_sockets():
    with tempfile.TemporaryDirectory() as folder:
        server, client = Noted(), Client()
        port = reactor.listenUNIXDatagram(f"{folder}/server", server)
        own = reactor.connectUNIXDatagram(f"{folder}/server", client, bindAddress=f"{folder}/client")
        client.transport.write(b"hello")
        await client.heard.until("data hello")
        await own.stopListening()
        await port.stopListening()
        server.heard.say("server")
        client.heard.say("client")


async def to_a_unix_socket_without_a_name_of_its_own():
    with tempfile.TemporaryDirectory() as folder:
        server, client = Noted(), Client()
        port = reactor.listenUNIXDatagram(f"{folder}/server", server)
        own = reactor.connectUNIXDatagram(f"{folder}/server", client)
        client.transport.write(b"hello")
        await server.heard.until("data hello")
        await own.stopListening()
        await port.stopListening()
        server.heard.say("server")
        client.heard.say("client")


async def no_unix_socket_is_there():
    client = Client()
    reactor.connectUNIXDatagram(f"/no/such/{os.getpid()}", client)
    client.heard.put("called")
    await soon()
    client.heard.say("client")


async def the_unix_socket_goes():
    with tempfile.TemporaryDirectory() as folder:
        client = Client()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(f"{folder}/server")
            own = reactor.connectUNIXDatagram(f"{folder}/server", client)
        client.transport.write(b"hello")
        await client.heard.until("refused")
        await own.stopListening()
        client.heard.say("client")
