"""Limits of time."""

import gevent
from gevent import Timeout
from gevent.event import Event

from said import FOREVER, LONG, SHORT, say


def a_timeout_cuts_a_wait_short():
    try:
        with Timeout(SHORT):
            gevent.sleep(FOREVER)
            say("never")
    except Timeout:
        say("timed out")


def a_timeout_runs_destructors():
    try:
        with Timeout(SHORT):
            try:
                gevent.sleep(FOREVER)
            finally:
                say("cleans up")
    except Timeout:
        say("timed out")


def a_timeout_in_time_does_nothing():
    with Timeout(FOREVER):
        gevent.sleep(0)
    say("in time")


def a_timeout_that_is_over_does_not_come_later():
    with Timeout(SHORT):
        gevent.sleep(0)
    gevent.sleep(LONG)
    say("in time")


def a_timeout_needs_a_wait():
    import time

    try:
        with Timeout(SHORT):
            time.sleep(LONG)
            say("computed")
            gevent.sleep(FOREVER)
            say("never")
    except Timeout:
        say("timed out")


def the_inner_timeout_first():
    try:
        with Timeout(FOREVER):
            try:
                with Timeout(SHORT):
                    gevent.sleep(FOREVER)
            except Timeout:
                say("inner")
            gevent.sleep(0)
            say("goes on")
    except Timeout:
        say("outer")


def the_outer_timeout_passes_the_inner():
    with Timeout(SHORT, False):
        with Timeout(FOREVER, False):
            gevent.sleep(FOREVER)
        say("never: this is not the inner one's")
    say("outer")


def timeouts_know_themselves():
    outer, inner = Timeout(SHORT), Timeout(FOREVER)
    outer.start()
    inner.start()
    try:
        gevent.sleep(FOREVER)
    except Timeout as timeout:
        say("outer", timeout is outer, "inner", timeout is inner)
    finally:
        outer.close()
        inner.close()


def a_cancelled_timeout_does_not_come():
    timeout = Timeout.start_new(SHORT)
    say("pending", timeout.pending)
    timeout.cancel()
    say("pending", timeout.pending)
    gevent.sleep(LONG)
    say("slept")


def a_silent_timeout():
    with Timeout(SHORT, False):
        gevent.sleep(FOREVER)
        say("never")
    say("after")


def with_timeout_gives_the_value():
    say(gevent.with_timeout(FOREVER, lambda: "value"))


def with_timeout_gives_another_value():
    say(gevent.with_timeout(SHORT, gevent.sleep, FOREVER, timeout_value="timed out"))


def with_timeout_passes_a_failure_on():
    def fails():
        raise ValueError("bad")

    try:
        gevent.with_timeout(FOREVER, fails)
    except ValueError as error:
        say("failed:", error)


def a_timeout_is_for_the_fiber_that_started_it():
    def other():
        gevent.sleep(LONG)
        say("the other slept")

    fiber = gevent.spawn(other)
    with Timeout(SHORT, False):
        gevent.sleep(FOREVER)
    say("timed out")
    fiber.join()


def a_swallowed_timeout_is_over():
    with Timeout(SHORT):
        try:
            gevent.sleep(FOREVER)
        except Timeout:
            say("swallowed")
        gevent.sleep(LONG)
        say("slept")


def a_kill_passes_timeouts():
    def body():
        try:
            with Timeout(FOREVER):
                gevent.sleep(FOREVER)
        except Timeout:
            say("never")

    fiber = gevent.spawn(body)
    gevent.sleep(0)
    fiber.kill()
    say("value", fiber.value)


def a_failure_passes_timeouts():
    try:
        with Timeout(FOREVER, False):
            raise ValueError("bad")
    except ValueError as error:
        say("failed:", error)


def timeouts_in_a_loop():
    event = Event()
    for attempt in range(3):
        with Timeout(SHORT, False):
            event.wait()
        say("attempt", attempt)


def many_timeouts_end_in_order():
    def body(name, seconds):
        with Timeout(seconds, False):
            gevent.sleep(FOREVER)
        say(name)

    gevent.joinall([
        gevent.spawn(body, "last", 0.03),
        gevent.spawn(body, "first", 0.01),
        gevent.spawn(body, "second", 0.02),
    ])
