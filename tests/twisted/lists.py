"""Several Deferreds as one."""

from twisted.internet.defer import (
    Deferred, DeferredList, FailureGroup, fail as failed, gatherResults, race, succeed,
)

from said import Unhandled, end, pending, say, show, step


def _results(results):
    say("results", [show(value) for _, value in results])


def all_in_their_own_order():
    a, b = Deferred(), Deferred()
    DeferredList([a, b]).addCallback(_results)
    b.callback(2)
    say("one fired")
    a.callback(1)


def all_with_failures():
    a, b = Deferred(), Deferred()
    DeferredList([a, b], consumeErrors=True).addCallback(_results)
    a.errback(ValueError("bad"))
    b.callback(2)


def of_none():
    DeferredList([]).addCallback(_results)
    end(gatherResults([]))


def of_fired_ones():
    DeferredList([succeed(1), succeed(2)]).addCallback(_results)


def the_first_value():
    a, b = Deferred(), Deferred()
    first = DeferredList([a, b], fireOnOneCallback=True)
    a.errback(ValueError("bad"))
    say("one failed")
    b.callback(2)
    first.addCallback(lambda found: say("value", found[0], "of", found[1]))
    a.addErrback(lambda _: None)


def the_first_failure():
    a, b = Deferred(), Deferred()
    first = DeferredList([a, b], fireOnOneErrback=True, consumeErrors=True)
    a.callback(1)
    b.errback(ValueError("bad"))
    end(first)


def no_failure():
    a, b = Deferred(), Deferred()
    first = DeferredList([a, b], fireOnOneErrback=True)
    a.callback(1)
    b.callback(2)
    first.addCallback(_results)


def late_failures_are_reported():
    with Unhandled() as unhandled:
        a, b = Deferred(), Deferred()
        first = DeferredList([a, b], fireOnOneCallback=True)
        a.callback(1)
        b.errback(ValueError("late"))
        del a, b, first
        unhandled.say()


def late_failures_are_consumed():
    with Unhandled() as unhandled:
        a, b = Deferred(), Deferred()
        first = DeferredList([a, b], fireOnOneCallback=True, consumeErrors=True)
        a.callback(1)
        b.errback(ValueError("late"))
        del a, b, first
        unhandled.say()


def cancelled():
    a, b = pending("a"), pending("b")
    everything = DeferredList([a, b], consumeErrors=True)
    everything.cancel()
    everything.addCallback(_results)


def cancelled_when_one_had_fired():
    a, b = pending("a"), pending("b")
    everything = DeferredList([a, b], consumeErrors=True)
    a.callback(1)
    everything.cancel()
    everything.addCallback(_results)


def gathered():
    a, b = Deferred(), Deferred()
    gathered = gatherResults([a, b])
    b.callback(2)
    a.callback(1)
    end(gathered)


def gathered_with_a_failure():
    a, b = Deferred(), Deferred()
    gathered = gatherResults([a, b], consumeErrors=True)
    b.errback(ValueError("bad"))
    # Where Warren gives the failure itself, Twisted wraps it.
    gathered.addErrback(lambda failure: say("failed", failure.value.subFailure))
    a.callback(1)


def gathered_and_cancelled():
    a, b = pending("a"), pending("b")
    gathered = gatherResults([a, b], consumeErrors=True)
    gathered.cancel()
    gathered.addErrback(lambda failure: say("failed", failure.value.subFailure))


def raced():
    a, b, c = pending("a"), pending("b"), pending("c")
    first = race([a, b, c]).addCallback(step("first"))
    b.callback(2)
    end(first)


def raced_by_one_that_had_fired():
    a = pending("a")
    end(race([a, succeed(2), failed(ValueError("bad"))]))


def raced_and_all_failed():
    a, b = Deferred(), Deferred()
    first = race([a, b])
    b.errback(ValueError("worse"))
    say("one failed")
    a.errback(ValueError("bad"))
    first.addErrback(_group)


def raced_and_cancelled():
    a, b = pending("a"), pending("b")
    first = race([a, b])
    first.cancel()
    first.addErrback(_group)


def _group(failure):
    failure.trap(FailureGroup)
    say("all failed", failure.value.failures)
