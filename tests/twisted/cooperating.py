"""Tasks that take their steps in turn."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, Cooperator

from said import end, say


class Turns:
    """A cooperator that takes one step in each turn."""

    def __init__(self):
        self.clock = Clock()
        self.cooperator = Cooperator(lambda: lambda: True, lambda call: self.clock.callLater(1, call))

    def take(self, count):
        for _ in range(count):
            self.clock.advance(1)


def _letters(name, count):
    for number in range(count):
        say(f"{name}{number}")
        yield


def tasks_take_turns():
    turns = Turns()
    done = turns.cooperator.coiterate(_letters("a", 3)).addCallback(lambda _: "a is done")
    turns.cooperator.coiterate(_letters("b", 2))
    turns.take(8)
    end(done)


def a_task_is_paused():
    turns = Turns()
    task = turns.cooperator.cooperate(_letters("a", 3))
    turns.cooperator.cooperate(_letters("b", 3))
    turns.take(1)
    task.pause()
    turns.take(4)
    task.resume()
    turns.take(4)


def a_task_is_stopped():
    turns = Turns()
    task = turns.cooperator.cooperate(_letters("a", 3))
    turns.take(1)
    done = task.whenDone().addErrback(lambda failure: failure.type.__name__)
    task.stop()
    turns.take(3)
    end(done)


def a_step_waits():
    turns = Turns()
    given = Deferred()

    def steps():
        say("first")
        yield given
        say("second")
    done = turns.cooperator.coiterate(steps()).addCallback(lambda _: "done")
    turns.take(3)
    say("fired", done.called)
    given.callback(None)
    turns.take(3)
    end(done)


def a_stopped_cooperator():
    turns = Turns()
    done = turns.cooperator.coiterate(_letters("a", 3)).addErrback(lambda failure: failure.type.__name__)
    turns.take(1)
    turns.cooperator.stop()
    turns.take(2)
    end(done)
    late = turns.cooperator.coiterate(_letters("b", 3)).addErrback(lambda failure: failure.type.__name__)
    end(late)
