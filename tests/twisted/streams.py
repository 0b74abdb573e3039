"""Standard input and output as a connection; here two pipes in their place."""

import os

from twisted.internet import interfaces
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from zope.interface import implementer

from heard import Heard, soon
from said import say


class Noted(Protocol):
    def __init__(self):
        self.heard = Heard()

    def connectionMade(self):
        self.heard.put("made")

    def dataReceived(self, data):
        self.heard.put("data", data.decode())

    def connectionLost(self, reason):
        self.heard.put("lost", reason)


@implementer(interfaces.IHalfCloseableProtocol)
class HalfCloseable(Noted):
    def readConnectionLost(self):
        self.heard.put("read lost")

    def writeConnectionLost(self):
        self.heard.put("write lost")


class _Case:
    """A protocol between two pipes, and their other ends."""

    def __init__(self, protocol):
        stdin, self.feed = os.pipe()
        self.output, stdout = os.pipe()
        self.heard = protocol.heard
        self.transport = StandardIO(protocol, stdin, stdout)
        self.heard.put("started")
        self.stdin, self.stdout = stdin, stdout

    def end(self):
        """Closes what it leaves open, and says what was heard."""
        for number in (self.feed, self.output, self.stdin, self.stdout):
            try:
                os.close(number)
            except OSError:
                pass
        self.heard.say("protocol")


async def a_conversation():
    case = _Case(Noted())
    os.write(case.feed, b"hello")
    await case.heard.until("data hello")
    case.transport.write(b"answer")
    await soon()
    say("output", os.read(case.output, 100).decode())
    case.transport.loseConnection()
    await case.heard.until("lost done")
    case.end()


async def its_input_ends():
    case = _Case(Noted())
    os.close(case.feed)
    await case.heard.until("lost done")
    case.end()


async def its_input_ends_and_it_goes_on():
    case = _Case(HalfCloseable())
    os.close(case.feed)
    await case.heard.until("read lost")
    case.transport.write(b"still")
    await soon()
    say("output", os.read(case.output, 100).decode())
    case.transport.loseConnection()
    await case.heard.until("lost done")
    case.end()


async def its_output_is_ended():
    case = _Case(HalfCloseable())
    case.transport.write(b"last")
    case.transport.loseWriteConnection()
    await case.heard.until("write lost")
    say("output", os.read(case.output, 100).decode())
    os.write(case.feed, b"still")
    await case.heard.until("data still")
    os.close(case.feed)
    await case.heard.until("read lost")
    await soon()
    case.end()


async def losing_writes_first():
    case = _Case(Noted())
    case.transport.write(b"x" * 300_000)
    case.transport.loseConnection()
    count = 0
    while "lost done" not in case.heard.lines:
        await soon(0.001)
        if count < 300_000:
            count += len(os.read(case.output, 65536))
    say("output", count)
    case.end()


async def losing_twice():
    case = _Case(Noted())
    case.transport.loseConnection()
    case.transport.loseConnection()
    await soon()
    case.end()
