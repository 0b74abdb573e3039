"""Limits of time, by a clock that stands still."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from said import end, give, pending, say, step


def in_time():
    clock = Clock()
    deferred = pending("a").addTimeout(2, clock).addCallback(step("a"))
    clock.advance(1)
    deferred.callback(1)
    clock.advance(5)
    end(deferred)


def too_late():
    clock = Clock()
    # One with a canceller that does nothing may not be fired later in Twisted.
    deferred = Deferred().addTimeout(2, clock).addErrback(step("failed"))
    clock.advance(1)
    say("a second")
    clock.advance(1)
    deferred.callback(1)
    end(deferred)


def the_call_goes_with_the_result():
    clock = Clock()
    deferred = Deferred().addTimeout(2, clock)
    say("calls", len(clock.getDelayedCalls()))
    deferred.callback(1)
    say("calls", len(clock.getDelayedCalls()))
    end(deferred)


def the_call_goes_with_a_failure():
    clock = Clock()
    deferred = Deferred().addTimeout(2, clock)
    deferred.errback(ValueError("bad"))
    say("calls", len(clock.getDelayedCalls()))
    end(deferred)


def cancelled_by_hand():
    clock = Clock()
    deferred = Deferred().addTimeout(2, clock)
    clock.advance(1)
    deferred.cancel()
    say("calls", len(clock.getDelayedCalls()))
    end(deferred)


def the_canceller_gives_a_value():
    clock = Clock()
    deferred = Deferred(lambda deferred: deferred.callback("partial")).addTimeout(2, clock)
    clock.advance(2)
    end(deferred)


def the_canceller_gives_a_failure():
    clock = Clock()
    deferred = Deferred(lambda deferred: deferred.errback(ValueError("hung up"))).addTimeout(2, clock)
    clock.advance(2)
    end(deferred)


def an_errback_before_it_sees_a_cancellation():
    clock = Clock()
    deferred = Deferred().addErrback(step("before")).addTimeout(2, clock).addErrback(step("after"))
    clock.advance(2)
    end(deferred)


def an_errback_before_it_recovers():
    clock = Clock()
    deferred = Deferred().addErrback(give(7)).addTimeout(2, clock)
    clock.advance(2)
    end(deferred)


def what_is_waited_for():
    clock = Clock()
    outer, inner = pending("outer"), pending("inner")
    outer.addCallback(give(inner)).addTimeout(2, clock)
    outer.callback(1)
    clock.advance(2)
    end(outer)


def the_shorter_of_two():
    clock = Clock()
    deferred = Deferred().addTimeout(5, clock).addErrback(step("first")).addTimeout(2, clock)
    deferred.addErrback(step("second"))
    clock.advance(2)
    end(deferred)
    say("calls", len(clock.getDelayedCalls()))


def one_that_is_longer_than_what_it_holds():
    clock = Clock()
    inner = pending("inner").addTimeout(1, clock)
    outer = Deferred().addCallback(give(inner)).addTimeout(3, clock)
    outer.callback(1)
    clock.advance(1)
    end(outer)
    say("calls", len(clock.getDelayedCalls()))


def later():
    clock = Clock()
    deferred = deferLater(clock, 2, lambda: 7).addCallback(step("a"))
    clock.advance(1)
    say("a second")
    clock.advance(1)
    end(deferred)


def later_and_cancelled():
    clock = Clock()
    deferred = deferLater(clock, 2, say, "never")
    deferred.cancel()
    say("calls", len(clock.getDelayedCalls()))
    end(deferred)
