"""Starting fibers, and the order in which they run."""

import gevent
from gevent.event import Event
from gevent.local import local

from said import FOREVER, LONG, SHORT, after, fails, say, steps


def spawn_does_not_run_before_the_caller_waits():
    fiber = gevent.spawn(say, "fiber")
    say("caller")
    fiber.join()
    say("joined")


def spawned_fibers_start_in_order():
    gevent.joinall([gevent.spawn(say, name) for name in "abc"])


def sleep_zero_goes_round():
    gevent.joinall([gevent.spawn(steps, name) for name in "abc"])


def sleep_zero_lets_a_new_fiber_run_first():
    gevent.spawn(say, "new")
    gevent.sleep(0)
    say("caller")


def a_fiber_spawned_by_a_fiber_runs_after_those_before():
    def parent():
        say("parent")
        gevent.spawn(say, "child")

    gevent.spawn(parent)
    gevent.spawn(say, "sibling")
    gevent.sleep(SHORT)


def the_caller_sleeps_zero_among_others():
    fibers = [gevent.spawn(steps, name) for name in "ab"]
    gevent.sleep(0)
    say("caller")
    gevent.sleep(0)
    say("caller")
    gevent.joinall(fibers)


def sleepers_wake_by_deadline():
    def sleeper(name, seconds):
        gevent.sleep(seconds)
        say(name)

    gevent.joinall([
        gevent.spawn(sleeper, "last", 0.03),
        gevent.spawn(sleeper, "first", 0.01),
        gevent.spawn(sleeper, "second", 0.02),
    ])


def sleep_is_not_woken_by_others_yielding():
    def sleeper():
        gevent.sleep(SHORT)
        say("slept")

    fiber = gevent.spawn(sleeper)
    gevent.spawn(steps, "other").join()
    fiber.join()


def spawn_later_starts_later():
    later = gevent.spawn_later(SHORT, say, "later")
    gevent.spawn(say, "now")
    gevent.sleep(0)
    say("ready", later.ready())
    later.join()
    say("ready", later.ready())


def spawn_later_in_order_of_time():
    gevent.joinall([
        gevent.spawn_later(0.02, say, "second"),
        gevent.spawn_later(0.01, say, "first"),
    ])


def spawn_later_killed_before_never_runs():
    later = gevent.spawn_later(SHORT, say, "never")
    later.kill()
    say("ready", later.ready())
    gevent.sleep(LONG)
    say("value", later.value)


def spawn_raw_runs_in_its_turn():
    gevent.spawn(say, "first")
    gevent.spawn_raw(say, "raw")
    gevent.spawn(say, "last")
    gevent.sleep(SHORT)


def a_fiber_knows_itself():
    def body():
        return gevent.getcurrent() is fiber

    fiber = gevent.spawn(body)
    say("itself", fiber.get())
    say("the caller", gevent.getcurrent() is fiber)


def states_of_a_fiber_that_returns():
    fiber = gevent.spawn(after, 0, 42)
    _states(fiber)
    gevent.sleep(0)
    _states(fiber)
    fiber.join()
    _states(fiber)


def states_of_a_fiber_that_fails():
    fiber = gevent.spawn(fails, "bad")
    fiber.join()
    _states(fiber)


def states_of_a_fiber_that_is_killed():
    fiber = gevent.spawn(gevent.sleep, FOREVER)
    gevent.sleep(0)
    fiber.kill()
    _states(fiber)


def states_of_a_fiber_killed_before_it_starts():
    fiber = gevent.spawn(say, "never")
    fiber.kill()
    _states(fiber)


def _states(fiber):
    say("ready", fiber.ready(), "successful", fiber.successful(), "value", fiber.value,
        "exception", fiber.exception)


def a_failure_does_not_reach_others():
    gevent.spawn(fails)
    other = gevent.spawn(after, 0, "unharmed")
    say(other.get())


def idle_waits_until_nobody_is_ready():
    gevent.spawn(steps, "busy", 3)
    gevent.idle()
    say("idle")


def fiber_locals_are_apart():
    mine = local()
    mine.name = "caller"

    def body(name):
        say(name, "has one already", hasattr(mine, "name"))
        mine.name = name
        gevent.sleep(0)
        say(mine.name)

    gevent.joinall([gevent.spawn(body, name) for name in "ab"])
    say(mine.name)


def a_wait_for_ever_is_reported():
    from gevent.exceptions import LoopExit
    from gevent.hub import Hub

    def forever():
        try:
            Event().wait()
        except LoopExit:
            return "reported"

    # A thread of its own has a hub of its own, whose main greenlet waits for what can never happen.
    result = gevent.get_hub().threadpool.spawn(forever).get()
    say(result)


def a_blocking_call_on_another_thread_lets_others_run():
    import threading

    go = threading.Event()

    def blocking():
        go.wait()
        return "done"

    fiber = gevent.spawn(lambda: say(gevent.get_hub().threadpool.apply(blocking)))
    gevent.spawn(steps, "meanwhile").join()
    go.set()
    fiber.join()


def a_failure_on_another_thread_comes_back():
    try:
        gevent.get_hub().threadpool.apply(fails, ("over there",))
    except ValueError as error:
        say("failed:", error)
