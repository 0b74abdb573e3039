"""Frames cut out of a stream: lines, netstrings, strings with their length before them, states."""

from twisted.internet.testing import StringTransport
from twisted.protocols.basic import (
    Int8StringReceiver, Int16StringReceiver, Int32StringReceiver, LineOnlyReceiver, LineReceiver,
    NetstringReceiver, StatefulStringProtocol, StringTooLongError)
from twisted.protocols.stateful import StatefulProtocol

from said import say


def _text(data):
    return data.decode("latin-1").encode("unicode_escape").decode()


def _feed(protocol, *chunks):
    """What a connection does: what is not read because it is paused, or lost, is never told."""
    transport = StringTransport()
    protocol.makeConnection(transport)
    for chunk in chunks:
        if transport.disconnecting or transport.producerState == "paused":
            say("not read")
            continue
        protocol.dataReceived(chunk)
    if transport.value():
        say("wrote", _text(transport.value()))
    say("losing", transport.disconnecting)
    return protocol


def _both(make, stream):
    """Whole, and byte by byte."""
    _feed(make(), stream)
    say("byte by byte")
    protocol, transport = make(), StringTransport()
    protocol.makeConnection(transport)
    for at in range(len(stream)):
        if not transport.disconnecting:
            protocol.dataReceived(stream[at:at + 1])
    say("losing", transport.disconnecting)


class _Lines(LineReceiver):
    MAX_LENGTH = 16
    raw_bytes = 0
    stays = False

    def lineReceived(self, line):
        say("line", _text(line))
        match line.split():
            case [b"pause"]:
                self.pauseProducing()
            case [b"lose"]:
                self.transport.loseConnection()
            case [b"clear"]:
                self.clearLineBuffer()
            case [b"semicolon"]:
                self.delimiter = b";"
            case [b"short"]:
                self.MAX_LENGTH = 3
            case [b"send"]:
                self.sendLine(b"sent")
            case [b"raw", count]:
                self.raw_bytes = int(count)
                self.setRawMode()

    def rawDataReceived(self, data):
        raw, rest = data[:self.raw_bytes], data[self.raw_bytes:]
        self.raw_bytes -= len(raw)
        for byte in raw:
            say("raw", _text(bytes([byte])))
        if not self.raw_bytes:
            self.setLineMode(rest)

    def lineLengthExceeded(self, line):
        say("exceeded", _text(line))
        if not self.stays:
            super().lineLengthExceeded(line)


def _lines(**settings):
    protocol = _Lines()
    for name, value in settings.items():
        setattr(protocol, name, value)
    return protocol


def lines():
    _both(_lines, b"one\r\n\r\ntwo\r\nthr")


def lines_with_half_delimiters():
    _both(_lines, b"a\rb\nc\r\r\n\n\r\n")


def lines_by_another_delimiter():
    _both(lambda: _lines(delimiter=b"\n"), b"one\n\ntwo\n")
    _both(lambda: _lines(delimiter=b"--8--"), b"a--8--8----8---8--b")
    _both(lambda: _lines(delimiter=b"aa"), b"aaabaaaa")


def a_line_as_long_as_the_limit():
    _both(_lines, b"0123456789abcdef\r\nx\r\n")
    _both(_lines, b"0123456789abcdef\r")


def a_line_beyond_the_limit():
    _feed(_lines(), b"ok\r\n0123456789abcdefg\r\nx\r\n", b"more\r\n")
    _feed(_lines(), b"0123456789abcdefgh")
    _feed(_lines(), b"0123456789", b"abcdef", b"g", b"hi")
    _feed(_lines(), b"0123456789abcdef\r", b"x")


def a_line_beyond_the_limit_that_is_forgiven():
    _feed(_lines(stays=True), b"ok\r\n0123456789abcdefg\r\nx\r\n", b"more\r\n")
    _feed(_lines(stays=True), b"0123456789abcdefgh", b"ij\r\nmore\r\n")


def the_limit_changes():
    _both(_lines, b"short\r\nabc\r\n")
    _feed(_lines(), b"short\r\nabcd\r\nab\r\n")


def raw_mode_and_back():
    _both(_lines, b"raw 3\r\nabcnext\r\n")
    _both(_lines, b"raw 2\r\n\r\n\r\nraw 1\r\nx\r\n")


def raw_mode_at_the_end_of_a_chunk():
    _feed(_lines(), b"raw 3\r\n", b"ab", b"cnext\r\nraw 1\r\nxraw 1\r\ny", b"z\r\n")


def lines_are_paused():
    protocol = _feed(_lines(), b"pause\r\na\r\npause\r\nb\r\nc", b"not read")
    say("resume")
    protocol.resumeProducing()
    say("resume")
    protocol.resumeProducing()
    protocol.dataReceived(b"d\r\n")


def the_connection_is_lost_by_a_line():
    _feed(_lines(), b"lose\r\na\r\n", b"b\r\n")


def lines_are_cleared():
    _feed(_lines(), b"clear\r\na\r\nb", b"c\r\n")


def the_delimiter_changes():
    _both(_lines, b"semicolon\r\na\r\n;b;")


def a_line_is_sent():
    _feed(_lines(), b"send\r\nsemicolon\r\nsend;")


class _OnlyLines(LineOnlyReceiver):
    MAX_LENGTH = 16

    def lineReceived(self, line):
        say("line", _text(line))
        if line == b"lose":
            self.transport.loseConnection()


def only_lines():
    _both(_OnlyLines, b"one\r\n\r\ntwo\r\nthr")
    _feed(_OnlyLines(), b"0123456789abcdef\r\nx\r\n")
    _feed(_OnlyLines(), b"ok\r\n0123456789abcdefg\r\nx\r\n")
    _feed(_OnlyLines(), b"lose\r\nx\r\n")


class _Told:
    """Says what it receives, and does what it says."""
    MAX_LENGTH = 20

    def stringReceived(self, string):
        say("string", _text(string))
        match string:
            case b"pause":
                self.pauseProducing()
            case b"send":
                self.sendString(b"sent")
            case b"long":
                try:
                    self.sendString(b"x" * 256)
                except StringTooLongError:
                    say("too long")

    def lengthLimitExceeded(self, length):
        say("exceeded", length)
        super().lengthLimitExceeded(length)


class _Netstrings(_Told, NetstringReceiver):
    pass


class _Int8(_Told, Int8StringReceiver):
    pass


class _Int16(_Told, Int16StringReceiver):
    pass


class _Int32(_Told, Int32StringReceiver):
    pass


def netstrings():
    _both(_Netstrings, b"3:one,0:,3:two,3:a,b,1:,,4:thr")


def a_netstring_is_sent():
    _feed(_Netstrings(), b"4:send,")


def what_is_no_netstring():
    for bad in [b"3:oneX3:two,", b"0:0:,", b":x,", b"1:x,y", b"01:x,", b"00", b"-1:x,", b"1 :x,", b"x"]:
        _both(_Netstrings, b"2:ok," + bad)


def a_netstring_beyond_the_limit():
    _both(_Netstrings, b"20:01234567890123456789,")
    _both(_Netstrings, b"0:,21")
    _both(_Netstrings, b"200")


def strings_of_each_size():
    _both(_Int8, b"\x03one\x00\x03two\x04thr")
    _both(_Int16, b"\x00\x03one\x00\x00\x00\x03two\x00")
    _both(_Int32, b"\x00\x00\x00\x03one\x00\x00\x00\x00\x00\x00\x00\x03two\x00\x00")


def strings_are_sent():
    _feed(_Int8(), b"\x04send\x04long")
    _feed(_Int16(), b"\x00\x04send")
    _feed(_Int32(), b"\x00\x00\x00\x04send")


def a_string_beyond_the_limit():
    _both(_Int8, b"\x0201\x1401234567890123456789")
    _both(_Int8, b"\x0201\x15")
    _both(_Int16, b"\x01\x00")
    _both(_Int32, b"\xff\xff\xff\xff")


def strings_are_paused():
    protocol = _feed(_Int8(), b"\x05pause\x01a\x05pause\x01b\x02c", b"not read")
    say("resume")
    protocol.resumeProducing()
    say("resume")
    protocol.resumeProducing()
    protocol.dataReceived(b"d")


class _Steps(StatefulProtocol):
    def getInitialState(self):
        return self._command, 1

    def _command(self, byte):
        say("command", _text(byte))
        match byte:
            case b"q":
                self.transport.loseConnection()
            case b"0":
                return self._nothing, 0
            case b"-":
                return None
            case digit:
                return self._body, int(digit)

    def _body(self, body):
        say("body", _text(body))
        return self._command, 1

    def _nothing(self, body):
        say("nothing", len(body))
        return self._body, 0


def states():
    _both(_Steps, b"3abc-02x")


def states_that_expect_nothing():
    _feed(_Steps(), b"0", b"1a0")


def the_connection_is_lost_by_a_state():
    _feed(_Steps(), b"1xq1x", b"1x")


class _Session(StatefulStringProtocol, NetstringReceiver):
    def proto_init(self, string):
        say("name", _text(string))
        return "message"

    def proto_message(self, string):
        say("message", _text(string))
        if string == b"bye":
            self.sendString(b"bye")
            return "done"
        return "message"


def strings_by_state():
    _feed(_Session(), b"2:me,3:one,3:two,3:bye,")
