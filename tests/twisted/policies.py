"""What wrapping factories and timeouts do, and when."""

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import (
    LimitTotalConnectionsFactory, ThrottlingFactory, TimeoutFactory, TimeoutMixin, WrappingFactory)

from said import say


class _Impatient(Protocol, TimeoutMixin):
    def timeoutConnection(self):
        say("timed out")
        super().timeoutConnection()


def _impatient():
    clock = Clock()
    protocol = _Impatient()
    protocol.callLater = clock.callLater
    protocol.makeConnection(StringTransport())
    return clock, protocol


def a_timeout():
    clock, protocol = _impatient()
    say("was", protocol.setTimeout(5))
    clock.advance(4)
    say("losing", protocol.transport.disconnecting)
    clock.advance(1)
    say("losing", protocol.transport.disconnecting)


def a_timeout_is_reset():
    clock, protocol = _impatient()
    protocol.setTimeout(5)
    for _ in range(3):
        clock.advance(4)
        protocol.resetTimeout()
    say("losing", protocol.transport.disconnecting)
    clock.advance(5)


def a_timeout_is_changed():
    clock, protocol = _impatient()
    protocol.setTimeout(5)
    clock.advance(4)
    say("was", protocol.setTimeout(3))
    clock.advance(2)
    say("was", protocol.setTimeout(10))
    clock.advance(9)
    say("losing", protocol.transport.disconnecting)
    clock.advance(1)


def a_timeout_is_taken_back():
    clock, protocol = _impatient()
    protocol.setTimeout(5)
    say("was", protocol.setTimeout(None))
    say("was", protocol.setTimeout(None))
    protocol.resetTimeout()
    clock.advance(100)
    say("losing", protocol.transport.disconnecting)


def a_timeout_that_is_over():
    clock, protocol = _impatient()
    protocol.setTimeout(5)
    clock.advance(5)
    protocol.resetTimeout()
    clock.advance(100)
    say("was", protocol.setTimeout(1))
    clock.advance(1)


class _Noted(Protocol):
    def connectionMade(self):
        say("made")

    def dataReceived(self, data):
        say("data", data.decode())

    def connectionLost(self, reason):
        say("lost")


class _Factory(Factory):
    protocol = _Noted

    def startFactory(self):
        say("start")

    def stopFactory(self):
        say("stop")

    def buildProtocol(self, addr):
        say("build")
        return super().buildProtocol(addr)


def _connect(factory):
    protocol = factory.buildProtocol(None)
    if protocol is None:
        say("refused")
        return None, None
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport


def a_factory_is_wrapped():
    factory = WrappingFactory(_Factory())
    factory.noisy = factory.wrappedFactory.noisy = False
    factory.doStart()
    protocol, _ = _connect(factory)
    say("connections", len(factory.protocols))
    protocol.dataReceived(b"hello")
    protocol.connectionLost(None)
    say("connections", len(factory.protocols))
    factory.doStop()


def connections_that_are_idle():
    clock = Clock()
    factory = TimeoutFactory(_Factory(), 10)
    factory.callLater = clock.callLater
    protocol, transport = _connect(factory)
    clock.advance(9)
    protocol.dataReceived(b"hello")
    clock.advance(9)
    protocol.write(b"hello")
    clock.advance(9)
    say("losing", transport.disconnecting)
    clock.advance(1)
    say("losing", transport.disconnecting)


def too_many_connections():
    factory = ThrottlingFactory(_Factory(), 2)
    _connect(factory)
    protocol, _ = _connect(factory)
    _connect(factory)
    protocol.connectionLost(None)
    _connect(factory)


class _TooMany(_Noted):
    def connectionMade(self):
        say("too many")


def too_many_connections_are_told_so():
    factory = LimitTotalConnectionsFactory()
    factory.protocol = _Noted
    factory.connectionLimit = 1
    protocol, _ = _connect(factory)
    _connect(factory)
    factory.overflowProtocol = _TooMany
    over, _ = _connect(factory)
    protocol.connectionLost(None)
    # Those who were too many count as well.
    again, _ = _connect(factory)
    over.connectionLost(None)
    again.connectionLost(None)
    _connect(factory)
