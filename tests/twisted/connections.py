"""Reads connections.txt, and does what it says with Twisted."""

import datetime
import functools
import pathlib
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import interfaces, protocol, reactor, ssl
from twisted.internet.defer import Deferred
from zope.interface import implementer

from said import say, show

PIECE = 100_000
# A table's `later`.
MOMENT = 0.05
PATIENCE = 20


def cases():
    """Names and lines."""
    sections = pathlib.Path(__file__).with_name("connections.txt").read_text().split("\n== ")[1:]
    for section in sections:
        name, *lines = section.splitlines()
        yield name, [line for line in lines if line]


@functools.cache
def _certificate():
    """A certificate for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ssl.PrivateCertificate.loadPEM(certificate.public_bytes(pem) + private)


def _tls(side):
    if side == "server":
        return _certificate().options()
    return ssl.optionsForClientTLS("localhost", trustRoot=_certificate())


class Case:
    def __init__(self, lines):
        self.marks, self.rules = set(), []
        for line in lines:
            if line.startswith(("differs: ", "> ")):
                continue
            event, colon, actions = line.partition(": ")
            if colon:
                self.rules.append((event, [action.strip() for action in actions.split(";")]))
            else:
                self.marks.add(line)
        self.logs = {"client": [], "server": []}
        self.transports, self.producers, self.done = {}, {}, set()
        # Connections that stand at the server's side, are expected there, and whether the client has finished.
        self.made = self.lost = self.refused = self.expected = 0
        self.stopped = False
        self.end = Deferred()

    async def run(self):
        with tempfile.TemporaryDirectory() as folder:
            self.listen(f"{folder}/socket")
            await self.end.addTimeout(PATIENCE, reactor, onTimeoutCancel=lambda *_: say("too late"))
            if self.port is not None:
                await self.port.stopListening()
        for side, log in self.logs.items():
            for line in log:
                say(side, line)

    def listen(self, path):
        server, client = Server(self), Client(self)
        self.port = None
        if "over unix" in self.marks:
            if "client to nowhere" not in self.marks:
                self.port = reactor.listenUNIX(path, server)
            reactor.connectUNIX(path, client)
        else:
            factory = server if "client to nowhere" not in self.marks else protocol.Factory()
            if "over tls" in self.marks:
                port = reactor.listenSSL(0, factory, _tls("server"), interface="127.0.0.1")
            else:
                port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            number = port.getHost().port
            if "client to nowhere" in self.marks:
                port.stopListening().addCallback(lambda _: reactor.connectTCP("127.0.0.1", number, client))
            else:
                self.port = port
                if "over tls" in self.marks:
                    reactor.connectSSL("127.0.0.1", number, client, _tls("client"))
                else:
                    reactor.connectTCP("127.0.0.1", number, client)

    def happened(self, side, event, detail=""):
        """Notes an event, and does what is to be done then."""
        line = f"{event} {detail}".strip()
        log = self.logs[side]
        if event == "data" and log and log[-1].startswith("data "):
            log.pop()
        log.append(line)
        for number, (wanted, actions) in enumerate(self.rules):
            if wanted in (f"{side} {event}", f"{side} {line}"):
                for action in actions:
                    self.do(side, action, number)

    def do(self, side, action, rule):
        if action.startswith("once "):
            if rule in self.done:
                return
            self.done.add(rule)
            return self.do(side, action.removeprefix("once "), rule)
        if action.startswith("later "):
            reactor.callLater(MOMENT, self.do, side, action.removeprefix("later "), rule)
            return
        for other in self.logs:
            if action.startswith(f"{other}."):
                return self.do(other, action.removeprefix(f"{other}."), rule)
        transport = self.transports.get(side)
        match action.split(" "):
            case ["write", text]: transport.write(text.encode())
            case ["fill", count]: transport.write(b"x" * int(count))
            case ["lose"]: transport.loseConnection()
            case ["abort"]: transport.abortConnection()
            case ["lose", "write"]: transport.loseWriteConnection()
            case ["pause", "reading"]: transport.pauseProducing()
            case ["resume", "reading"]: transport.resumeProducing()
            case ["push", pieces]: Push(self, side, int(pieces)).register()
            case ["pull", pieces]: Pull(self, side, int(pieces)).register()
            case ["register"]: transport.registerProducer(Push(self, side, 0), True)
            case ["unregister"]: transport.unregisterProducer()
            case ["start", "tls"]: transport.startTLS(_tls(side))
            case ["stop", "listening"]:
                self.port.stopListening()
                self.port = None
            case ["stop", "connecting"]: self.connector.stopConnecting()
            case ["disconnect"]: self.connector.disconnect()
            case ["connect"]: self.connector.connect()
            case ["fail"]: raise RuntimeError("expected by a scenario")
            case _: raise SystemExit(f"connections.txt: no action {action!r}")

    def check_end(self):
        if self.stopped and self.made == self.lost and self.expected == self.lost + self.refused and not self.end.called:
            # After the rest of this turn.
            reactor.callLater(0, lambda: self.end.called or self.end.callback(None))


def _reason(failure):
    return "failed" if failure.check(RuntimeError) else show(failure)


@implementer(interfaces.IHandshakeListener)
class Recorder(protocol.Protocol):
    def __init__(self, case, side):
        self.case, self.side, self.received = case, side, b""

    def connectionMade(self):
        self.case.transports[self.side] = self.transport
        if "over unix" not in self.case.marks:
            # As Warren's are from the beginning.
            self.transport.setTcpNoDelay(True)
        if self.side == "server":
            self.case.made += 1
        self.case.happened(self.side, "made")

    def handshakeCompleted(self):
        self.case.happened(self.side, "handshake")

    def dataReceived(self, data):
        self.received += data
        text = self.received.decode() if len(self.received) <= 40 else f"{len(self.received)} bytes"
        waited_for = [f"{self.side} data {text}" == event for event, _ in self.case.rules]
        if any(waited_for) or f"{self.side} quiet" not in self.case.marks:
            self.case.happened(self.side, "data", text)

    def connectionLost(self, reason):
        if self.side == "server":
            self.case.lost += 1
        try:
            self.case.happened(self.side, "lost", _reason(reason))
        finally:
            self.case.check_end()


@implementer(interfaces.IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    def readConnectionLost(self):
        self.case.happened(self.side, "read lost")

    def writeConnectionLost(self):
        self.case.happened(self.side, "write lost")


class Factory(protocol.Factory):
    noisy = False

    def __init__(self, case):
        self.case = case

    def startFactory(self):
        self.case.happened(self.side, "start")

    def stopFactory(self):
        self.case.happened(self.side, "stop")

    def buildProtocol(self, _):
        self.case.happened(self.side, "build")
        if self.side == "client":
            self.case.expected += 1
        if f"{self.side} refuses" in self.case.marks:
            if self.side == "server":
                self.case.refused += 1
                self.case.check_end()
            return None
        kind = HalfCloseable if f"{self.side} half closeable" in self.case.marks else Recorder
        return kind(self.case, self.side)


class Server(Factory):
    side = "server"


class Client(Factory, protocol.ClientFactory):
    side = "client"

    def startedConnecting(self, connector):
        self.case.connector = connector
        self.case.happened("client", "connecting")

    def clientConnectionFailed(self, _, reason):
        self.case.happened("client", "failed", _reason(reason))

    def clientConnectionLost(self, _, reason):
        self.case.happened("client", "factory lost", _reason(reason))

    def stopFactory(self):
        super().stopFactory()
        self.case.stopped = True
        self.case.check_end()


class Producer:
    def __init__(self, case, side, pieces):
        self.case, self.side, self.pieces = case, side, pieces
        self.consumer = case.transports[side]

    def write(self):
        self.consumer.write(b"x" * PIECE)
        self.pieces -= 1
        if self.pieces == 0:
            self.consumer.unregisterProducer()
            self.case.happened(self.side, "produced")

    def stopProducing(self):
        self.pieces = 0
        self.case.happened(self.side, "stopped")


@implementer(interfaces.IPushProducer)
class Push(Producer):
    """Writes a piece a turn. Only its first pause is told: how many there are is the system's affair."""
    paused = told = False

    def register(self):
        self.consumer.registerProducer(self, True)
        self.go_on()

    def go_on(self):
        if not self.paused and 0 < self.pieces:
            self.write()
            reactor.callLater(0, self.go_on)

    def pauseProducing(self):
        self.paused = True
        if not self.told:
            self.told = True
            self.case.happened(self.side, "paused")

    def resumeProducing(self):
        self.paused = False
        reactor.callLater(0, self.go_on)


@implementer(interfaces.IPullProducer)
class Pull(Producer):
    """Only the first few resumptions are told."""
    told = 0

    def register(self):
        self.consumer.registerProducer(self, False)

    def resumeProducing(self):
        self.told += 1
        if self.told <= 3:
            self.case.happened(self.side, "resumed", self.told)
        self.write()
