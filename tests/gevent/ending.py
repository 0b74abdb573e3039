"""Killing fibers."""

import gevent
from gevent import GreenletExit
from gevent.event import Event

from said import FOREVER, SHORT, after, fails, say


def _sleeper(name="fiber"):
    """Says what happens to it."""
    try:
        say(name, "sleeps")
        gevent.sleep(FOREVER)
        say(name, "is never here")
    finally:
        say(name, "cleans up")


def _started(body, *arguments):
    fiber = gevent.spawn(body, *arguments)
    gevent.sleep(0)
    return fiber


def kill_before_the_start_never_runs():
    fiber = gevent.spawn(_sleeper)
    fiber.kill()
    gevent.sleep(0)
    say("value", fiber.value, "successful", fiber.successful())


def kill_at_a_wait_cleans_up():
    fiber = _started(_sleeper)
    fiber.kill()
    say("value", fiber.value)


def kill_waits_for_the_end():
    fiber = _started(_sleeper)
    say("killing")
    fiber.kill()
    say("killed")


def kill_without_waiting_returns_first():
    fiber = _started(_sleeper)
    fiber.kill(block=False)
    say("ready", fiber.ready())
    fiber.join()
    say("ready", fiber.ready())


def kill_runs_in_its_turn():
    fiber = _started(_sleeper)
    gevent.spawn(say, "spawned before the kill")
    fiber.kill(block=False)
    gevent.spawn(say, "spawned after the kill")
    gevent.sleep(0)
    gevent.sleep(0)


def kill_of_one_that_has_just_been_woken():
    event = Event()

    def body():
        try:
            event.wait()
            say("woken")
            gevent.sleep(FOREVER)
        finally:
            say("cleans up")

    fiber = _started(body)
    event.set()
    fiber.kill()
    say("value", fiber.value)


def kill_of_a_finished_fiber_changes_nothing():
    fiber = gevent.spawn(after, 0, "value")
    fiber.join()
    fiber.kill()
    say("value", fiber.value)


def kill_of_a_failed_fiber_changes_nothing():
    fiber = gevent.spawn(fails, "bad")
    fiber.join()
    fiber.kill()
    say("successful", fiber.successful(), "exception", fiber.exception)


def kill_twice_unwinds_once():
    fiber = _started(_sleeper)
    fiber.kill(block=False)
    fiber.kill(block=False)
    fiber.join()
    say("value", fiber.value)


def a_kill_may_be_swallowed():
    def body():
        try:
            gevent.sleep(FOREVER)
        except GreenletExit:
            say("swallowed")
        return "survived"

    fiber = _started(body)
    fiber.kill()
    say("value", fiber.value)


def who_swallowed_a_kill_may_wait_again():
    def body():
        try:
            gevent.sleep(FOREVER)
        except GreenletExit:
            say("swallowed")
        gevent.sleep(0)
        say("waited")
        return "survived"

    fiber = _started(body)
    fiber.kill()
    say("value", fiber.value)


def who_swallowed_a_kill_may_be_killed_again():
    def body():
        try:
            gevent.sleep(FOREVER)
        except GreenletExit:
            say("swallowed")
        gevent.sleep(FOREVER)
        say("never")

    fiber = _started(body)
    fiber.kill(block=False)
    gevent.sleep(SHORT)
    say("ready", fiber.ready())
    fiber.kill()
    say("value", fiber.value)


def a_finally_may_wait():
    def body():
        try:
            gevent.sleep(FOREVER)
        finally:
            say("begins to clean up")
            gevent.sleep(0)
            say("has cleaned up")

    fiber = _started(body)
    fiber.kill()
    say("value", fiber.value)


def an_exit_raised_inside_is_a_success():
    def body():
        gevent.getcurrent().kill(block=False)
        gevent.sleep(0)
        say("never")

    fiber = gevent.spawn(body)
    fiber.join()
    say("value", fiber.value, "successful", fiber.successful(), "exception", fiber.exception)


def a_kill_of_oneself_comes_at_the_next_wait():
    def body():
        gevent.getcurrent().kill(block=False)
        say("still here")
        gevent.sleep(0)
        say("never")

    gevent.spawn(body).join()
    say("joined")


def another_exception_may_be_thrown():
    def body():
        try:
            gevent.sleep(FOREVER)
        finally:
            say("cleans up")

    fiber = _started(body)
    fiber.kill(ValueError("thrown"))
    say("successful", fiber.successful(), "exception", fiber.exception)


def what_is_thrown_may_be_caught():
    def body():
        try:
            gevent.sleep(FOREVER)
        except ValueError as error:
            return f"caught {error}"

    fiber = _started(body)
    fiber.kill(ValueError("thrown"))
    say("value", fiber.value)


def thrown_before_the_start_fails_the_fiber():
    fiber = gevent.spawn(say, "never")
    fiber.kill(ValueError("thrown"))
    say("successful", fiber.successful(), "exception", fiber.exception)


def kill_all_in_order():
    fibers = [gevent.spawn(_sleeper, name) for name in "abc"]
    gevent.sleep(0)
    gevent.killall(fibers)
    say([fiber.value for fiber in fibers])


def kill_all_with_some_that_never_started():
    started = _started(_sleeper, "started")
    fresh = gevent.spawn(say, "never")
    gevent.killall([started, fresh])
    say(started.value, fresh.value)


def kill_all_without_waiting():
    fibers = [gevent.spawn(_sleeper, name) for name in "ab"]
    gevent.sleep(0)
    gevent.killall(fibers, block=False)
    say("ready", [fiber.ready() for fiber in fibers])
    gevent.joinall(fibers)
    say("ready", [fiber.ready() for fiber in fibers])


def kill_gives_up_after_its_timeout():
    def stubborn():
        while True:
            try:
                gevent.sleep(FOREVER)
            except GreenletExit:
                say("swallowed")
                if stop:
                    return "stopped"

    stop = []
    fiber = _started(stubborn)
    fiber.kill(timeout=SHORT)
    say("ready", fiber.ready())
    stop.append(True)
    fiber.kill()
    say("value", fiber.value)


def a_killed_waiter_leaves_its_line():
    event = Event()

    def body(name):
        event.wait()
        say(name, "woke")

    first, second = gevent.spawn(body, "first"), gevent.spawn(body, "second")
    gevent.sleep(0)
    first.kill()
    event.set()
    second.join()


def a_killed_joiner_leaves_the_other_alone():
    fiber = gevent.spawn(after, SHORT, "value")
    joiner = _started(fiber.join)
    joiner.kill()
    say("joiner", joiner.value)
    say("fiber", fiber.get())


def a_fiber_kills_its_killer():
    def body(name):
        try:
            gevent.sleep(FOREVER)
        finally:
            say(name, "ends")
            others[name].kill(block=False)

    others = {}
    a, b = gevent.spawn(body, "a"), gevent.spawn(body, "b")
    others.update(a=b, b=a)
    gevent.sleep(0)
    a.kill()
    b.join()
