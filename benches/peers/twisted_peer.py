"""Twisted's part of the scenarios of `benches/src/reactor/`, under the same names.

    twisted_peer.py echo|requests          serves, and prints its address
    twisted_peer.py SCENARIO N OPERATIONS  prints the figures
"""

import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.protocol import Factory, Protocol  # noqa: E402
from twisted.internet.testing import StringTransport  # noqa: E402
from twisted.protocols.basic import Int32StringReceiver, LineReceiver, NetstringReceiver  # noqa: E402

from watches import ProcessorWatch  # noqa: E402

REQUEST_BYTES = 64
BATCH = 1_000
CHUNK_BYTES = 64 * 1024


class Echo(Protocol):
    def connectionMade(self):
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data):
        self.transport.write(data)


class Requests(Protocol):
    begun = b""

    def connectionMade(self):
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data):
        if self.begun:
            data = self.begun + data
        whole = len(data) // REQUEST_BYTES * REQUEST_BYTES
        for start in range(0, whole, REQUEST_BYTES):
            self.transport.write(data[start:start + REQUEST_BYTES])
        self.begun = data[whole:]


def serve(protocol):
    port = reactor.listenTCP(0, Factory.forProtocol(protocol), backlog=4096, interface="127.0.0.1")
    print(f"127.0.0.1:{port.getHost().port}", flush=True)
    reactor.run()


def nothing():
    pass


def calls_cancelled(n, operations, tell):
    calls = [reactor.callLater(30 + number % 1024 / 1000, nothing) for number in range(n)]
    rounds = max(1, operations // BATCH)
    left = rounds

    def batch():
        nonlocal left
        for number in range(BATCH):
            reactor.callLater(30 + number % 1024 / 1000, nothing).cancel()
        left -= 1
        if left:
            reactor.callLater(0, batch)
        else:
            tell(watch.per_second(rounds * BATCH))
            calls.clear()

    def start():
        # After a turn, which has sorted in those that are scheduled.
        nonlocal watch
        watch = ProcessorWatch()
        batch()

    watch = None
    reactor.callLater(0, start)


def calls_made(n, operations, tell):
    rounds = max(1, operations // n)
    rounds_left, left = rounds, 0
    watch = ProcessorWatch()

    def call():
        nonlocal left, rounds_left
        left -= 1
        if left == 0:
            rounds_left -= 1
            if rounds_left:
                schedule()
            else:
                tell(watch.per_second(rounds * n))

    def schedule():
        nonlocal left
        left = n
        for _ in range(n):
            reactor.callLater(0.001, call)

    schedule()


def deferred(n, operations, tell):
    def step(number):
        return number + 1

    rounds = max(1, operations // n)
    watch = ProcessorWatch()
    for _ in range(rounds):
        one = Deferred()
        for _ in range(n):
            one.addCallback(step)
        one.callback(0)
    tell(watch.per_second(rounds * n))


class Counting:
    frames = 0

    def stringReceived(self, _):
        self.frames += 1

    lineReceived = stringReceived


def received(receiver, frame, operations):
    protocol = type("Receiver", (Counting, receiver), {"delimiter": b"\n"})()
    protocol.makeConnection(StringTransport())
    frames = 16 * CHUNK_BYTES // len(frame)
    period = frame * frames
    watch = ProcessorWatch()
    for _ in range(max(1, operations // frames)):
        for at in range(0, len(period), CHUNK_BYTES):
            protocol.dataReceived(period[at:at + CHUNK_BYTES])
    return watch.per_second(protocol.frames)


def lines(n, operations, tell):
    tell(received(LineReceiver, b"x" * n + b"\n", operations))


def strings(n, operations, tell):
    tell(received(Int32StringReceiver, n.to_bytes(4, "big") + b"x" * n, operations))


def netstrings(n, operations, tell):
    tell(received(NetstringReceiver, b"%d:%b," % (n, b"x" * n), operations))


def measure(name, n, operations):
    def tell(figures):
        print(*figures)
        reactor.stop()

    reactor.callWhenRunning(globals()[name.replace("-", "_")], n, operations, tell)
    reactor.run()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo"]:
            serve(Echo)
        case ["requests"]:
            serve(Requests)
        case [name, n, operations]:
            measure(name, int(n), int(operations))
        case _:
            sys.exit(__doc__)
