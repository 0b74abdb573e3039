"""Child processes."""

import os
import signal

from twisted.internet import reactor
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutput, getProcessOutputAndValue, getProcessValue

from heard import Heard, soon
from said import SHOWN, say

# What comes when a child ends has no order.
ENDING = ("0 lost", "1 lost", "2 lost", "3 lost", "4 lost", "exited", "out", "err")


def _reason(reason):
    return f"exit code {reason.exitCode}" if reason.exitCode is not None else f"signal {reason.signal}"


# Before what they are kinds of.
SHOWN[:0] = [(ProcessDone, _reason), (ProcessTerminated, _reason)]


class Noted(ProcessProtocol):
    def __init__(self):
        self.heard = Heard()

    def connectionMade(self):
        self.heard.put("made")

    def childDataReceived(self, number, data):
        self.heard.put({1: "out", 2: "err"}.get(number, number), data.decode().strip())
        if data == b"fail\n":
            raise RuntimeError("expected by a scenario")

    def childConnectionLost(self, number):
        self.heard.put(number, "lost")

    def processExited(self, reason):
        self.heard.put("exited", reason)

    def processEnded(self, reason):
        self.heard.put("ended")


def _spawn(script, **more):
    protocol = Noted()
    protocol.process = reactor.spawnProcess(protocol, "/bin/sh", ["sh", "-c", script], env=os.environ, **more)
    return protocol


async def it_begins_before_spawning_returns():
    child = _spawn("exec cat")
    child.heard.put("spawned")
    child.process.closeStdin()
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def one_that_reads_and_writes():
    child = _spawn("exec cat")
    child.process.write(b"hello")
    await child.heard.until("out hello")
    child.process.closeStdin()
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def one_that_writes_to_both_and_fails():
    child = _spawn("echo out; echo err >&2; exit 3")
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def one_that_is_killed():
    child = _spawn("echo ready; exec sleep 1000")
    await child.heard.until("out ready")
    child.process.signalProcess("TERM")
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def signals_after_the_end():
    child = _spawn("exec cat")
    say("runs", child.process.pid is not None)
    child.process.closeStdin()
    await child.heard.until("ended")
    say("runs", child.process.pid is not None)
    try:
        child.process.signalProcess("TERM")
    except ProcessExitedAlready:
        say("has ended already")


async def no_such_signal():
    child = _spawn("exec cat")
    try:
        child.process.signalProcess("NONSENSE")
    except (TypeError, ValueError):
        say("no such signal")
    child.process.closeStdin()
    await child.heard.until("ended")


async def its_input_is_closed_once():
    child = _spawn("exec cat")
    child.process.write(b"one")
    child.process.closeStdin()
    child.process.closeStdin()
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def it_closes_its_input():
    child = _spawn("exec <&-; echo ready; exec sleep 1000")
    await child.heard.until("0 lost")
    await child.heard.until("out ready")
    child.process.write(b"never read")
    child.process.signalProcess("KILL")
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def we_close_its_outputs():
    child = _spawn("trap '' PIPE; echo ready; read x; echo never; exit 5")
    await child.heard.until("out ready")
    child.process.closeStdout()
    await child.heard.until("1 lost")
    child.process.closeStderr()
    await child.heard.until("2 lost")
    child.process.write(b"\n")
    await child.heard.until("ended")
    child.heard.say("child", ("0 lost", "exited"))


async def we_close_all():
    child = _spawn("trap '' PIPE; read x; exit 6")
    child.process.write(b"\n")
    child.process.loseConnection()
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def a_grandchild_holds_its_outputs():
    child = _spawn("sleep 1000 & echo $!; read x; exit 4")
    await _until_out(child)
    grandchild = int(child.heard.lines.pop().split()[1])
    child.process.write(b"\n")
    await child.heard.until("exited exit code 4")
    await child.heard.until("0 lost")
    await soon()
    child.heard.put("the grandchild is killed")
    os.kill(grandchild, signal.SIGKILL)
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def _until_out(child):
    while not child.heard.lines[-1].startswith("out"):
        await soon(0.01)


async def more_descriptors():
    child = _spawn("cat <&3 >&4; exit 0", childFDs={0: "w", 1: "r", 3: "w", 4: "r"})
    child.process.writeToChild(3, b"through")
    await child.heard.until("4 through")
    child.process.closeChildFD(3)
    await child.heard.until("3 lost")
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def a_callback_that_fails():
    child = _spawn("echo fail; read x; echo on >&2")
    await child.heard.until("1 lost")
    child.process.write(b"\n")
    await child.heard.until("ended")
    child.heard.say("child", ("0 lost", "2 lost", "exited", "err"))


async def a_beginning_that_fails():
    protocol = Noted()

    def made():
        protocol.heard.put("made")
        raise RuntimeError("expected by a scenario")

    protocol.connectionMade = made
    reactor.spawnProcess(protocol, "/bin/sh", ["sh", "-c", "exit 0"])
    await protocol.heard.until("ended")
    protocol.heard.say("child", ENDING)


async def a_terminal():
    child = _spawn("stty -echo; test -t 1 && echo yes; read x", usePTY=True)
    await child.heard.until("out yes")
    child.process.closeStdin()
    child.process.write(b"\n")
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def a_terminal_that_hangs_up():
    child = _spawn("echo ready; exec sleep 1000", usePTY=True)
    await child.heard.until("out ready")
    child.process.loseConnection()
    await child.heard.until("ended")
    child.heard.say("child", ENDING)


async def a_programs_output():
    say("output", (await getProcessOutput("/bin/sh", ["-c", "echo out; exit 7"])).decode().strip())


async def a_programs_complaint_is_a_failure():
    try:
        await getProcessOutput("/bin/sh", ["-c", "echo out; echo err >&2; sleep 1"])
    except IOError as error:
        say("failed", "err" in str(error))


async def a_programs_complaint_as_output():
    output = await getProcessOutput("/bin/sh", ["-c", "echo out; echo err >&2"], errortoo=True)
    say("output", sorted(output.decode().split()))


async def a_programs_value():
    say("value", await getProcessValue("/bin/sh", ["-c", "echo out; exit 7"]))


async def a_programs_output_and_value():
    out, err, code = await getProcessOutputAndValue("/bin/sh", ["-c", "cat; echo err >&2; exit 2"], stdinBytes=b"in")
    say("out", out.decode(), "err", err.decode().strip(), "value", code)


async def a_program_that_is_killed_has_no_value():
    def killed(failure):
        out, _, number = failure.value
        say("out", out.decode(), "signal", number)

    await getProcessOutputAndValue("/bin/sh", ["-c", "printf half; kill -TERM $$"]).addErrback(killed)
