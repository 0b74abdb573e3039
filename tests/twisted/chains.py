"""In which order callbacks are called, and with what."""

from twisted.internet.defer import Deferred, ensureDeferred, execute, fail as failed, maybeDeferred, succeed

from said import Unhandled, end, fail, give, say, step


def callbacks_in_order():
    deferred = Deferred()
    for name in "abc":
        deferred.addCallback(step(name))
    say("added")
    deferred.callback(1)
    end(deferred)


def each_takes_what_the_one_before_gave():
    deferred = Deferred()
    deferred.addCallback(lambda n: n + 1).addCallback(step("a"))
    deferred.addCallback(lambda n: f"<{n}>").addCallback(step("b"))
    deferred.callback(1)
    end(deferred)


def one_added_later_is_called_at_once():
    deferred = Deferred()
    deferred.addCallback(step("a"))
    deferred.callback(1)
    say("fired")
    deferred.addCallback(step("b"))
    end(deferred)


def a_failure_skips_callbacks():
    deferred = Deferred()
    deferred.addCallback(step("a")).addErrback(step("failed")).addCallback(step("b"))
    deferred.errback(ValueError("bad"))
    end(deferred)


def an_errback_recovers():
    deferred = Deferred()
    deferred.addErrback(step("failed")).addErrback(give(7)).addCallback(step("a"))
    deferred.errback(ValueError("bad"))
    end(deferred)


def a_callback_fails():
    deferred = Deferred()
    deferred.addCallback(fail("bad")).addCallback(step("a")).addErrback(step("failed"))
    deferred.callback(1)
    end(deferred)


def an_errback_fails_otherwise():
    deferred = Deferred()
    deferred.addErrback(fail("worse")).addErrback(step("failed"))
    deferred.errback(ValueError("bad"))
    end(deferred)


def errbacks_are_skipped_by_values():
    deferred = Deferred()
    deferred.addErrback(step("failed")).addCallback(step("a")).addErrback(step("failed"))
    deferred.callback(1)
    end(deferred)


def a_pair_does_not_hear_itself():
    deferred = Deferred()
    deferred.addCallbacks(fail("bad"), step("never")).addErrback(step("failed"))
    deferred.callback(1)
    end(deferred)


def a_pair_chooses():
    deferred = Deferred()
    deferred.addCallbacks(step("value"), give(2))
    deferred.errback(ValueError("bad"))
    deferred.addCallbacks(step("value"), step("never"))
    end(deferred)


def both_hear_either():
    for start in [lambda d: d.callback(1), lambda d: d.errback(ValueError("bad"))]:
        deferred = Deferred()
        deferred.addBoth(step("both")).addBoth(give(2)).addBoth(step("both"))
        start(deferred)
        end(deferred)


def a_failure_goes_through_many():
    deferred = Deferred()
    deferred.addCallback(fail("bad"))
    for _ in range(100):
        deferred.addCallback(step("never"))
    deferred.callback(1)
    end(deferred)


def a_given_deferred_is_waited_for():
    outer, inner = Deferred(), Deferred()
    outer.addCallback(give(inner)).addCallback(step("a"))
    outer.callback(1)
    say("outer fired")
    inner.callback(2)
    end(outer)


def a_given_deferred_that_has_fired():
    outer = Deferred()
    outer.addCallback(give(succeed(2))).addCallback(step("a"))
    outer.callback(1)
    end(outer)


def a_given_deferred_that_fails():
    outer, inner = Deferred(), Deferred()
    outer.addCallback(give(inner)).addCallback(step("never")).addErrback(step("failed"))
    outer.callback(1)
    inner.errback(ValueError("bad"))
    end(outer)


def a_given_deferred_has_its_own_callbacks_first():
    outer, inner = Deferred(), Deferred()
    inner.addCallback(step("inner"))
    outer.addCallback(give(inner)).addCallback(step("outer"))
    inner.addCallback(lambda n: n + 1)
    outer.callback(1)
    inner.callback(2)
    end(outer)


def a_given_deferred_that_fires_first():
    outer, inner = Deferred(), Deferred()
    inner.addCallback(step("inner"))
    outer.addCallback(step("outer")).addCallback(give(inner)).addCallback(step("both"))
    inner.callback(2)
    outer.callback(1)
    end(outer)


def an_errback_gives_a_deferred():
    outer, inner = Deferred(), Deferred()
    outer.addErrback(give(inner)).addCallback(step("a"))
    outer.errback(ValueError("bad"))
    say("outer failed")
    inner.callback(2)
    end(outer)


def three_deep():
    first, second, third = Deferred(), Deferred(), Deferred()
    second.addCallback(step("second")).addCallback(give(third)).addCallback(step("in second"))
    first.addCallback(step("first")).addCallback(give(second)).addCallback(step("in first"))
    first.callback(1)
    second.callback(2)
    say("two fired")
    third.callback(3)
    end(first)


def one_after_another():
    outer, first, second = Deferred(), Deferred(), Deferred()
    outer.addCallback(give(first)).addCallback(step("a"))
    outer.addCallback(give(second)).addCallback(step("b"))
    outer.callback(0)
    second.callback(2)
    say("second fired")
    first.callback(1)
    end(outer)


def firing_within_a_callback():
    outer, other = Deferred(), Deferred()
    other.addCallback(step("other"))

    def fire(value):
        say("fires")
        other.callback(2)
        say("fired")
        return value

    outer.addCallback(fire).addCallback(step("outer"))
    outer.callback(1)
    end(outer)


def a_callback_adds_to_another():
    outer, other = Deferred(), Deferred()
    other.callback(2)

    def add(value):
        other.addCallback(step("other"))
        say("added")
        return value

    outer.addCallback(add).addCallback(step("outer"))
    outer.callback(1)
    end(outer)


def chained():
    first, second = Deferred(), Deferred()
    second.addCallback(step("second"))
    first.addCallback(step("first"))
    first.chainDeferred(second)
    first.callback(1)
    end(second)


def chained_failure():
    first, second = Deferred(), Deferred()
    first.chainDeferred(second)
    second.addErrback(step("failed"))
    first.errback(ValueError("bad"))
    end(second)


def chained_after_it_fired():
    first, second = Deferred(), Deferred()
    first.callback(1)
    second.addCallback(step("second"))
    first.chainDeferred(second)
    end(second)


def fired_from_the_beginning():
    end(succeed(1).addCallback(step("a")))
    end(failed(ValueError("bad")).addErrback(step("failed")))


def maybe():
    end(maybeDeferred(lambda: 1))
    end(maybeDeferred(lambda: succeed(2)))
    end(maybeDeferred(fail("bad"), None))
    waits = Deferred()
    deferred = maybeDeferred(lambda: waits)
    end(deferred)
    waits.callback(3)
    end(execute(lambda: 4))


def paused():
    deferred = Deferred()
    deferred.pause()
    deferred.addCallback(step("a"))
    deferred.callback(1)
    say("fired")
    deferred.unpause()
    end(deferred)


def paused_after_it_fired():
    deferred = Deferred().addCallback(step("a"))
    deferred.callback(1)
    deferred.pause()
    deferred.addCallback(step("b"))
    say("added")
    deferred.unpause()
    end(deferred)


def an_unhandled_failure_is_reported():
    with Unhandled() as unhandled:
        deferred = Deferred()
        deferred.addCallback(step("never"))
        deferred.errback(ValueError("lost"))
        unhandled.say()
        del deferred
        unhandled.say()


def a_handled_failure_is_not_reported():
    with Unhandled() as unhandled:
        deferred = Deferred()
        deferred.errback(ValueError("bad"))
        deferred.addErrback(give(None))
        del deferred
        unhandled.say()


def a_failure_handed_on_is_reported_once():
    with Unhandled() as unhandled:
        inner, outer = Deferred(), Deferred()
        outer.addCallback(lambda _, inner=inner: inner)
        outer.callback(1)
        inner.errback(ValueError("lost"))
        del inner
        unhandled.say()
        del outer
        unhandled.say()


def straight_code_waits():
    first, second = Deferred(), Deferred()

    async def body():
        value = await first
        say("first", value)
        try:
            await second
        except ValueError as error:
            say("failed", error)
        return value + 1

    deferred = ensureDeferred(body())
    first.callback(1)
    second.errback(ValueError("bad"))
    end(deferred)


def straight_code_fails():
    async def body():
        await succeed(1)
        raise ValueError("bad")

    end(ensureDeferred(body()))
