"""A Twisted peer for peers.rs: one connection, as a server that answers or as a client that asks.

    peer.py server KIND [CERTIFICATE KEY]       prints its port, then how the connection ended
    peer.py client KIND PORT [CERTIFICATE KEY]  prints how many answers were right, and how the connection ended

Each message is answered by itself in reverse; bytes without frames by themselves.
"""

import pathlib
import sys

from twisted.internet import error, protocol, reactor, ssl
from twisted.protocols import basic

ROLE, KIND, *REST = sys.argv[1:]
# So many bytes are echoed.
ECHOED = 3_000_000
RAW = 5000
PATIENCE = 60


def messages():
    """What a client says, message by message. Sizes at the edges of what the framing can tell."""
    sizes = {
        "lines": [0, 1, 2, 500, 16384, 3],
        "lines_too_long": [1, 16385],
        "raw": [1, 2],
        "netstrings": [0, 1, 9, 10, 99, 100, 65536, 99999, 3],
        "netstrings_too_long": [1, 100000],
        "int8": [0, 1, 254, 255, 3],
        "int16": [0, 1, 255, 256, 65535, 3],
        "int32": [0, 1, 255, 65536, 99999, 3],
        "int32_too_long": [1, 100000],
        "start_tls": [1, 2, 16384],
    }[KIND]
    return [bytes(97 + (place + size) % 26 for place in range(size)) for size in sizes]


def certificate():
    return pathlib.Path(REST[0 if ROLE == "server" else 1]).read_bytes()


def pair():
    return ssl.PrivateCertificate.loadPEM(certificate() + pathlib.Path(REST[-1]).read_bytes())


def tls():
    """What either side needs to know for TLS."""
    root = ssl.Certificate.loadPEM(certificate())
    if KIND == "mutual_tls":
        # Both sides show the same certificate, and agree upon a protocol.
        mine, spoken = pair(), [b"warren"]
        if ROLE == "server":
            return ssl.CertificateOptions(privateKey=mine.privateKey.original, certificate=mine.original,
                                          trustRoot=ssl.trustRootFromCertificates([root]), acceptableProtocols=spoken)
        return ssl.optionsForClientTLS("localhost", root, mine, acceptableProtocols=spoken)
    if ROLE == "server":
        return pair().options()
    return ssl.optionsForClientTLS("localhost", trustRoot=root)


def end(text):
    print(text, flush=True)
    if reactor.running:
        reactor.stop()


class Framed:
    """What servers and clients do with whole messages."""
    answered = 0

    def connectionMade(self):
        self.send = getattr(self, "sendLine", None) or self.sendString
        if ROLE == "client":
            self.begin()

    def begin(self):
        self.messages = messages()
        for message in self.messages:
            self.send(message)

    def received(self, message):
        if ROLE == "server":
            return self.send(message[::-1])
        assert message == self.messages[self.answered][::-1], (message, self.answered)
        self.answered += 1
        if self.answered == len(self.messages):
            self.transport.loseConnection()

    lineReceived = stringReceived = received

    def connectionLost(self, reason):
        if ROLE == "client":
            print("answered", self.answered)
        end("done" if reason.check(error.ConnectionDone) else f"lost: {reason.value}")


class Lines(Framed, basic.LineReceiver):
    pass


class Netstrings(Framed, basic.NetstringReceiver):
    pass


class Int8(Framed, basic.Int8StringReceiver):
    pass


class Int16(Framed, basic.Int16StringReceiver):
    pass


class Int32(Framed, basic.Int32StringReceiver):
    pass


class Raw(Lines):
    """Between the lines are bytes without lines."""

    def begin(self):
        first, second = messages()
        self.sendLine(first)
        self.sendLine(b"RAW")
        self.transport.write(b"\r\n" * (RAW // 2))
        self.sendLine(second)
        # As if the answer in the middle were the reverse of something.
        self.messages = [first, (b"got %d" % RAW)[::-1], second]

    def lineReceived(self, line):
        if line == b"RAW":
            self.left = RAW
            return self.setRawMode()
        self.received(line)

    def rawDataReceived(self, data):
        taken = data[:self.left]
        self.left -= len(taken)
        if self.left == 0:
            self.sendLine(b"got %d" % RAW)
            self.setLineMode(data[len(taken):])


class StartTls(Lines):
    """In the clear until the client asks for more."""

    def begin(self):
        self.sendLine(b"STARTTLS")

    def lineReceived(self, line):
        if line == b"STARTTLS":
            self.sendLine(b"GO")
            return self.transport.startTLS(tls())
        if line == b"GO":
            self.transport.startTLS(tls())
            return super().begin()
        self.received(line)


class Echo(protocol.Protocol):
    received = 0

    def connectionMade(self):
        if ROLE == "client":
            self.transport.write(b"x" * ECHOED)

    def dataReceived(self, data):
        if KIND == "mutual_tls":
            assert self.transport.negotiatedProtocol == b"warren"
            assert self.transport.getPeerCertificate() is not None
        self.received += len(data)
        if ROLE == "server":
            self.transport.write(data)
        elif self.received == ECHOED:
            self.transport.loseConnection()

    def connectionLost(self, reason):
        if ROLE == "client":
            print("answered", self.received)
        end("done" if reason.check(error.ConnectionDone) else f"lost: {reason.value}")


PROTOCOLS = {
    "echo": Echo, "tls": Echo, "mutual_tls": Echo, "lines": Lines, "raw": Raw, "netstrings": Netstrings, "int8": Int8,
    "int16": Int16, "int32": Int32, "start_tls": StartTls,
}


def main():
    factory = protocol.ClientFactory() if ROLE == "client" else protocol.Factory()
    factory.protocol, factory.noisy = PROTOCOLS[KIND.removesuffix("_too_long")], False
    if ROLE == "client":
        factory.clientConnectionFailed = lambda _, reason: end(f"failed: {reason.value}")
        if KIND in ("tls", "mutual_tls"):
            reactor.connectSSL("127.0.0.1", int(REST[0]), factory, tls())
        else:
            reactor.connectTCP("127.0.0.1", int(REST[0]), factory)
    else:
        if KIND in ("tls", "mutual_tls"):
            port = reactor.listenSSL(0, factory, tls(), interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        print(port.getHost().port, flush=True)
    reactor.callLater(PATIENCE, end, "too late")
    reactor.run()


main()
