"""Looping calls, by a clock that stands still."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall

from said import end, say


def _starting(call, clock, interval, now):
    call.clock = clock
    return call.start(interval, now)


def _saying(clock):
    return lambda: say("at", int(clock.seconds() * 10))


def _counting(clock):
    return lambda count: say("at", int(clock.seconds() * 10), "count", count)


def at_once_and_then_at_intervals():
    clock = Clock()
    call = LoopingCall(_saying(clock))
    _starting(call, clock, 1, True)
    for _ in range(5):
        clock.advance(0.5)
    call.stop()
    say("calls", len(clock.getDelayedCalls()))


def first_after_an_interval():
    clock = Clock()
    _starting(LoopingCall(_saying(clock)), clock, 1, False)
    for _ in range(5):
        clock.advance(0.5)


def late_calls_keep_to_the_grid():
    clock = Clock()
    _starting(LoopingCall(_saying(clock)), clock, 1, True)
    for amount in [0.25, 3, 0.5, 0.25, 2.5, 0.5]:
        clock.advance(amount)


def missed_intervals_are_counted():
    clock = Clock()
    _starting(LoopingCall.withCount(_counting(clock)), clock, 1, True)
    for amount in [0.25, 3, 0.5, 0.25, 2.5, 0.5, 1]:
        clock.advance(amount)


def missed_intervals_of_a_later_start():
    clock = Clock()
    _starting(LoopingCall.withCount(_counting(clock)), clock, 1, False)
    for amount in [0.25, 3, 0.5, 0.25, 2.5, 0.5, 1]:
        clock.advance(amount)


def stopped():
    clock = Clock()
    call = LoopingCall(_saying(clock))
    done = _starting(call, clock, 1, True).addCallback(lambda _: "stopped")
    say("running", call.running)
    call.stop()
    say("running", call.running)
    end(done)
    clock.advance(5)


def stopped_by_itself():
    clock = Clock()
    seen = []

    def tick():
        say("tick")
        seen.append(1)
        if len(seen) == 3:
            call.stop()
    call = LoopingCall(tick)
    done = _starting(call, clock, 1, True).addCallback(lambda _: "stopped")
    for _ in range(5):
        clock.advance(1)
    end(done)


def started_again():
    clock = Clock()
    call = LoopingCall(_saying(clock))
    _starting(call, clock, 1, True)
    clock.advance(1.5)
    call.stop()
    clock.advance(1)
    # Counted, this one would count from the last call before the stop. Ours counts from its start.
    _starting(call, clock, 0.5, False)
    clock.advance(0.5)
    clock.advance(1)


def waits_for_a_deferred():
    clock = Clock()
    given = []

    def tick(count):
        say("at", int(clock.seconds() * 10), "count", count)
        given.append(Deferred())
        return given[-1]
    call = LoopingCall.withCount(tick)
    _starting(call, clock, 1, True)
    clock.advance(3.5)
    say("calls", len(clock.getDelayedCalls()))
    given.pop().callback(None)
    say("calls", len(clock.getDelayedCalls()))
    clock.advance(0.5)


def stopped_while_it_waits():
    clock = Clock()
    given = Deferred()
    call = LoopingCall(lambda: given)
    done = _starting(call, clock, 1, True).addCallback(lambda _: "stopped")
    call.stop()
    say("running", call.running, "fired", done.called)
    given.callback(None)
    end(done)
    say("calls", len(clock.getDelayedCalls()))


def an_error_stops_it():
    clock = Clock()

    def tick():
        raise ValueError("bad")
    call = LoopingCall(tick)
    done = _starting(call, clock, 1, False)
    clock.advance(1)
    say("running", call.running, "calls", len(clock.getDelayedCalls()))
    end(done)


def a_failure_stops_it():
    clock = Clock()
    given = Deferred()
    call = LoopingCall(lambda: given)
    done = _starting(call, clock, 1, True)
    clock.advance(5)
    given.errback(ValueError("bad"))
    say("running", call.running, "calls", len(clock.getDelayedCalls()))
    end(done)


def reset():
    clock = Clock()
    call = LoopingCall(_saying(clock))
    _starting(call, clock, 1, True)
    clock.advance(0.5)
    call.reset()
    for _ in range(5):
        clock.advance(0.5)


def reset_and_counted():
    clock = Clock()
    call = LoopingCall.withCount(_counting(clock))
    _starting(call, clock, 1, True)
    clock.advance(2.5)
    call.reset()
    for amount in [1, 0.5, 2, 1]:
        clock.advance(amount)
