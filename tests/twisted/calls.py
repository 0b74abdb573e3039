"""Calls at a time to come, by a clock that stands still."""

from twisted.internet.task import Clock

from said import say, yes_if_it_works


def _at(clock, seconds, name):
    return clock.callLater(seconds, lambda: say(name, "at", int(clock.seconds())))


def in_the_order_of_their_times():
    clock = Clock()
    for name, seconds in [("c", 3), ("a", 1), ("b", 1), ("d", 5)]:
        _at(clock, seconds, name)
    clock.pump([1] * 4)
    say("waiting", len(clock.getDelayedCalls()))


def at_once():
    clock = Clock()
    _at(clock, 0, "a")
    say("asked")
    clock.advance(0)


def cancelled():
    clock = Clock()
    call = _at(clock, 1, "never")
    say("active", call.active())
    call.cancel()
    say("active", call.active())
    say("again", yes_if_it_works(call.cancel))
    clock.advance(2)


def cancelled_after_it_was_made():
    clock = Clock()
    call = _at(clock, 1, "a")
    clock.advance(1)
    say("active", call.active(), "cancelled", yes_if_it_works(call.cancel))


def cancelled_by_another():
    clock = Clock()
    never = _at(clock, 2, "never")
    clock.callLater(1, never.cancel)
    _at(clock, 2, "a")
    clock.advance(1)
    clock.advance(1)


def put_off_and_brought_forward():
    clock = Clock()
    late, early, twice = _at(clock, 2, "late"), _at(clock, 2, "early"), _at(clock, 2, "twice")
    late.delay(2)
    early.reset(1)
    twice.reset(5)
    twice.reset(3)
    for _ in range(5):
        clock.advance(1)


def reset_from_now():
    clock = Clock()
    call = _at(clock, 3, "a")
    clock.advance(2)
    call.reset(3)
    clock.advance(1)
    say("not yet")
    clock.advance(2)


def a_call_asks_for_another():
    clock = Clock()
    clock.callLater(1, lambda: _at(clock, 1, "b"))
    clock.advance(1)
    say("one made")
    clock.advance(1)
