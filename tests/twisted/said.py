"""What scenarios have in common, and small things that many of them need."""

import errno
import gc
import pathlib
import sys

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, FirstError, TimeoutError
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

from compared import SHOWN, finish, say, scenarios_of, show, take

SHOWN += [
    (Failure, lambda failure: show(failure.value)),
    (CancelledError, lambda _: "cancelled"),
    (TimeoutError, lambda _: "timed out"),
    (FirstError, lambda first: f"{first.index}: {show(first.subFailure)}"),
    (error.ConnectionDone, lambda _: "done"),
    (error.ConnectionAborted, lambda _: "aborted"),
    (error.ConnectionLost, lambda _: "lost"),
    (error.ConnectionRefusedError, lambda _: "refused"),
    (error.UserError, lambda _: "given up"),
    (error.ConnectError, lambda error: "no such file" if error.osError == errno.ENOENT else str(error)),
]


def step(name):
    """A callback that says what it receives, and passes it on."""
    def callback(value):
        say(name, value)
        return value
    return callback


def fail(text):
    """A callback that fails."""
    def callback(_):
        raise ValueError(text)
    return callback


def give(value):
    """A callback that gives this, whatever it receives."""
    return lambda _: value


def pending(name):
    """A Deferred with a canceller that says its name."""
    return Deferred(lambda _: say("cancels", name))


def yes_if_it_works(function):
    """Where Warren says by a value whether something was done, Twisted raises an exception when it was not."""
    try:
        function()
    except Exception:
        return False
    return True


def end(deferred):
    """Says what a Deferred has come to, and takes its failure."""
    if not deferred.called or isinstance(deferred.result, Deferred):
        say("waits")
    deferred.addCallbacks(lambda value: say("value", value), lambda failure: say("failed", failure))


class Unhandled:
    """Counts failures that nobody has taken."""

    def __enter__(self):
        self.failures = []
        globalLogPublisher.addObserver(self)
        return self

    def __call__(self, event):
        if event.get("log_failure") is not None:
            self.failures.append(event["log_failure"])

    def __exit__(self, *_):
        globalLogPublisher.removeObserver(self)

    def say(self):
        gc.collect()
        say("unhandled", self.failures)
        self.failures.clear()
