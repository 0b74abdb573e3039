"""Starting and stopping: the phases of system events."""

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorAlreadyRunning, ReactorNotRestartable, ReactorNotRunning

from said import say


class Reactor(ReactorBase):
    """One that does nothing but to start and to stop."""

    def installWaker(self):
        pass

    def removeAll(self):
        return []

    def saying(self, text):
        return lambda: say(text, self.running)

    def trigger(self, phase, event, text):
        return self.addSystemEventTrigger(phase, event, self.saying(text))

    def go(self):
        """Starts, and turns until it has stopped."""
        self.startRunning(installSignalHandlers=False)
        self.turn()

    def turn(self):
        for _ in range(3):
            self.runUntilCurrent()

    def refused(self, call):
        try:
            call()
        except ReactorNotRunning:
            say("not running")
        except ReactorAlreadyRunning:
            say("already running")
        except ReactorNotRestartable:
            say("not restartable")


def phases():
    reactor = Reactor()
    for event in ["shutdown", "startup"]:
        for phase in ["after", "during", "before"]:
            reactor.trigger(phase, event, f"{phase} {event}")
    reactor.trigger("before", "startup", "before startup, too")
    reactor.callWhenRunning(reactor.stop)
    reactor.go()


def when_running():
    reactor = Reactor()
    reactor.callWhenRunning(reactor.saying("first"))

    def second():
        reactor.callWhenRunning(reactor.saying("at once"))
        say("second")
        reactor.stop()
    reactor.callWhenRunning(second)
    reactor.trigger("after", "startup", "third")
    reactor.go()


def a_deferred_holds_up_the_next_phase():
    reactor = Reactor()
    one, two = Deferred(), Deferred()
    reactor.addSystemEventTrigger("before", "reload", lambda: one)
    reactor.addSystemEventTrigger("before", "reload", lambda: two)
    for phase in ["before", "during", "after"]:
        reactor.trigger(phase, "reload", phase)
    reactor.fireSystemEvent("reload")
    say("one")
    two.callback(None)
    say("two")
    one.callback(None)


def a_failure_holds_up_nothing():
    reactor = Reactor()

    def bad():
        say("bad")
        raise ValueError("bad")
    for phase in ["before", "during", "after"]:
        reactor.addSystemEventTrigger(phase, "reload", bad)
        reactor.trigger(phase, "reload", phase)
    reactor.fireSystemEvent("reload")


def a_deferred_that_fails_holds_up_nothing():
    reactor = Reactor()
    given = Deferred()
    reactor.addSystemEventTrigger("before", "reload", lambda: given)
    reactor.trigger("during", "reload", "during")
    reactor.fireSystemEvent("reload")
    say("fails")
    given.errback(ValueError("bad"))


def later_phases_wait_for_nothing():
    reactor = Reactor()
    reactor.addSystemEventTrigger("during", "reload", Deferred)
    reactor.trigger("after", "reload", "after")
    reactor.fireSystemEvent("reload")


def triggers_are_called_once():
    reactor = Reactor()
    reactor.trigger("during", "reload", "during")
    reactor.fireSystemEvent("reload")
    reactor.fireSystemEvent("reload")
    reactor.fireSystemEvent("unknown")


def removed():
    reactor = Reactor()
    reactor.trigger("during", "reload", "stays")
    id = reactor.trigger("during", "reload", "never")
    reactor.removeSystemEventTrigger(id)
    try:
        reactor.removeSystemEventTrigger(id)
    except ValueError:
        say("not twice")
    reactor.fireSystemEvent("reload")


def added_and_removed_meanwhile():
    reactor = Reactor()

    def first():
        reactor.trigger("before", "reload", "added before")
        reactor.trigger("after", "reload", "added after")
        reactor.removeSystemEventTrigger(id)
        say("first")
    reactor.addSystemEventTrigger("before", "reload", first)
    id = reactor.trigger("before", "reload", "never")
    reactor.fireSystemEvent("reload")


def what_is_refused():
    reactor = Reactor()
    reactor.refused(reactor.stop)

    def running():
        reactor.refused(reactor.startRunning)
        reactor.refused(reactor.stop)
        reactor.refused(reactor.stop)
        say("stopping")
    reactor.callWhenRunning(running)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: reactor.refused(reactor.stop))
    reactor.go()
    reactor.refused(reactor.stop)
    reactor.refused(reactor.startRunning)


def stopped_while_it_starts():
    reactor = Reactor()
    reactor.addSystemEventTrigger("before", "startup", reactor.stop)
    for event in ["startup", "shutdown"]:
        reactor.trigger("after", event, f"after {event}")
    reactor.go()
