"""What a cancellation reaches."""

from twisted.internet.defer import Deferred, ensureDeferred

from said import Unhandled, end, fail, give, pending, say, step


def without_a_canceller():
    deferred = Deferred()
    deferred.addErrback(step("failed"))
    deferred.cancel()
    end(deferred)


def the_canceller_is_called_first():
    deferred = pending("a")
    deferred.addErrback(step("failed"))
    deferred.cancel()
    say("cancelled")
    end(deferred)


def the_canceller_gives_a_value():
    deferred = Deferred(lambda deferred: deferred.callback(7))
    deferred.addCallback(step("a"))
    deferred.cancel()
    end(deferred)


def the_canceller_gives_a_failure():
    deferred = Deferred(lambda deferred: deferred.errback(ValueError("hung up")))
    deferred.cancel()
    end(deferred)


def what_is_fired_later_is_dropped():
    deferred = Deferred()
    deferred.addCallbacks(step("never"), step("failed"))
    deferred.cancel()
    deferred.callback(1)
    end(deferred)


def twice():
    deferred = pending("a")
    deferred.cancel()
    deferred.cancel()
    end(deferred)


def after_it_fired():
    deferred = pending("a")
    deferred.callback(1)
    deferred.cancel()
    end(deferred)


def after_it_failed():
    deferred = pending("a")
    deferred.errback(ValueError("bad"))
    deferred.cancel()
    end(deferred)


def it_goes_down_the_chain():
    deferred = pending("a")
    deferred.addCallback(step("never")).addErrback(step("failed")).addErrback(give(1))
    deferred.addCallback(step("b"))
    deferred.cancel()
    end(deferred)


def what_is_waited_for():
    outer, inner = pending("outer"), pending("inner")
    outer.addCallback(give(inner)).addErrback(step("failed"))
    outer.callback(1)
    outer.cancel()
    end(outer)


def what_is_waited_for_three_deep():
    first, second, third = pending("first"), pending("second"), pending("third")
    second.addCallback(give(third)).addErrback(step("second"))
    first.addCallback(give(second)).addErrback(step("first"))
    first.callback(1)
    second.callback(2)
    first.cancel()
    end(first)


def what_is_waited_for_gives_a_value():
    outer = pending("outer")
    inner = Deferred(lambda deferred: deferred.callback(7))
    outer.addCallback(give(inner)).addCallback(step("a"))
    outer.callback(1)
    outer.cancel()
    end(outer)


def what_is_not_yet_waited_for():
    outer, inner = pending("outer"), pending("inner")
    outer.addCallback(give(inner)).addErrback(step("failed"))
    outer.cancel()
    inner.callback(2)
    end(outer)


def what_is_waited_for_next():
    outer, first, second = pending("outer"), pending("first"), pending("second")
    outer.addCallback(give(first)).addCallback(give(second)).addErrback(step("failed"))
    outer.callback(0)
    first.callback(1)
    outer.cancel()
    end(outer)


def an_errback_waits_again():
    outer, first, second = pending("outer"), pending("first"), pending("second")
    outer.addCallback(give(first)).addErrback(give(second)).addErrback(step("failed"))
    outer.callback(0)
    outer.cancel()
    say("cancelled once")
    outer.cancel()
    end(outer)


def within_its_own_callback():
    deferred = pending("a")

    def cancel(value):
        deferred.cancel()
        say("cancelled")
        return value

    deferred.addCallback(cancel).addCallbacks(step("b"), step("never"))
    deferred.callback(1)
    end(deferred)


def the_inner_one_by_itself():
    outer, inner = pending("outer"), pending("inner")
    outer.addCallback(give(inner)).addErrback(step("failed"))
    outer.callback(1)
    inner.cancel()
    end(outer)


def the_end_of_a_chain_of_two():
    first, second = pending("first"), pending("second")
    first.chainDeferred(second)
    second.addErrback(step("failed"))
    second.cancel()
    end(second)


def the_beginning_of_a_chain_of_two():
    first, second = pending("first"), pending("second")
    first.chainDeferred(second)
    second.addErrback(step("failed"))
    first.cancel()
    end(second)


def a_callback_cancels_another():
    outer, other = Deferred(), pending("other")
    other.addErrback(step("other"))

    def cancel(value):
        other.cancel()
        return value

    outer.addCallback(cancel).addCallback(step("outer"))
    outer.callback(1)
    end(outer)
    end(other)


def cancelled_and_dropped():
    with Unhandled() as unhandled:
        deferred = Deferred()
        deferred.cancel()
        del deferred
        unhandled.say()


def straight_code():
    inner = pending("inner")

    async def body():
        try:
            await inner
        finally:
            say("cleans up")

    deferred = ensureDeferred(body())
    deferred.cancel()
    end(deferred)


def a_failing_callback_behind_it():
    deferred = pending("a")
    deferred.addErrback(fail("worse")).addErrback(step("failed"))
    deferred.cancel()
    end(deferred)
