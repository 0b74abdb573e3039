"""Waiting for fibers and other things to end."""

import gevent
from gevent import Timeout
from gevent.event import AsyncResult, Event
from gevent.lock import Semaphore

from said import FOREVER, LONG, SHORT, after, fails, say


def get_gives_the_value():
    say(gevent.spawn(after, 0, "value").get())


def get_raises_the_failure():
    try:
        gevent.spawn(fails, "bad").get()
    except ValueError as error:
        say("failed:", error)


def get_of_a_killed_fiber_does_not_raise():
    fiber = gevent.spawn(gevent.sleep, FOREVER)
    gevent.sleep(0)
    fiber.kill()
    say(fiber.get())


def get_gives_up_after_a_timeout():
    fiber = gevent.spawn(after, LONG, "value")
    try:
        fiber.get(timeout=SHORT)
    except Timeout:
        say("timed out")
    say("ready", fiber.ready())
    say(fiber.get())


def get_without_waiting():
    fiber = gevent.spawn(after, 0, "value")
    try:
        fiber.get(block=False)
    except Timeout:
        say("not yet")
    fiber.join()
    say(fiber.get(block=False))


def get_as_often_as_one_likes():
    fiber = gevent.spawn(after, 0, "value")
    say(fiber.get(), fiber.get(), fiber.value)


def join_gives_up_after_a_timeout():
    fiber = gevent.spawn(after, LONG, "value")
    fiber.join(timeout=SHORT)
    say("ready", fiber.ready())
    fiber.join()
    say("ready", fiber.ready())


def join_of_a_finished_fiber_does_not_wait():
    fiber = gevent.spawn(after, 0, "value")
    fiber.join()
    gevent.spawn(say, "others run")
    fiber.join()
    say("joined")
    gevent.sleep(0)


def many_join_one_in_order():
    fiber = gevent.spawn(after, SHORT, "value")

    def joiner(name):
        fiber.join()
        say(name)

    gevent.joinall([gevent.spawn(joiner, name) for name in "abc"])


def joinall_waits_for_all():
    fibers = [gevent.spawn(after, seconds, name) for name, seconds in [("a", LONG), ("b", 0), ("c", SHORT)]]
    done = gevent.joinall(fibers)
    say([fiber.value for fiber in fibers])
    say(len(done))


def joinall_gives_up_after_a_timeout():
    fibers = [gevent.spawn(after, seconds, name) for name, seconds in [("a", FOREVER), ("b", 0)]]
    done = gevent.joinall(fibers, timeout=SHORT)
    say([fiber.value for fiber in done])
    gevent.killall(fibers)


def joinall_waits_for_a_count():
    fibers = [gevent.spawn(after, seconds, name) for name, seconds in [("a", FOREVER), ("b", SHORT), ("c", 0)]]
    done = gevent.joinall(fibers, count=2)
    say([fiber.value for fiber in done])
    gevent.killall(fibers)


def joinall_raises_the_first_failure():
    fibers = [gevent.spawn(after, FOREVER, "a"), gevent.spawn(fails, "bad")]
    try:
        gevent.joinall(fibers, raise_error=True)
    except ValueError as error:
        say("failed:", error)
    say("the other is ready", fibers[0].ready())
    gevent.killall(fibers)


def joinall_without_raising_keeps_failures():
    fibers = [gevent.spawn(after, 0, "a"), gevent.spawn(fails, "bad")]
    gevent.joinall(fibers)
    say([fiber.successful() for fiber in fibers])


def joinall_of_nothing_returns():
    say(len(gevent.joinall([])))


def wait_for_things_of_all_kinds():
    event, result, semaphore = Event(), AsyncResult(), Semaphore(0)
    fiber = gevent.spawn(after, SHORT, "fiber")
    names = {event: "event", result: "result", semaphore: "semaphore", fiber: "fiber"}

    def trigger():
        semaphore.release()
        gevent.sleep(0)
        result.set("value")
        gevent.sleep(0)
        event.set()

    gevent.spawn(trigger)
    done = gevent.wait([event, result, semaphore, fiber])
    say(sorted(names[each] for each in done))


def wait_for_a_count():
    events = [Event(), Event(), Event()]
    gevent.spawn(events[2].set)
    done = gevent.wait(events, count=1)
    say([events.index(each) for each in done])


def wait_gives_up_after_a_timeout():
    events = [Event(), Event()]
    gevent.spawn(events[1].set)
    done = gevent.wait(events, timeout=SHORT)
    say([events.index(each) for each in done])


def wait_for_what_is_ready_already():
    events = [Event(), Event()]
    events[0].set()
    done = gevent.wait(events, count=1)
    say([events.index(each) for each in done])


def iwait_gives_each_as_it_ends():
    fibers = [gevent.spawn(after, seconds, name) for name, seconds in [("a", 0.03), ("b", 0.01), ("c", 0.02)]]
    for done in gevent.iwait(fibers):
        say(done.value)


def iwait_stops_after_a_count():
    fibers = [gevent.spawn(after, seconds, name) for name, seconds in [("a", FOREVER), ("b", SHORT), ("c", 0)]]
    say([done.value for done in gevent.iwait(fibers, count=2)])
    gevent.killall(fibers)


def iwait_gives_up_after_a_timeout():
    fibers = [gevent.spawn(after, seconds, name) for name, seconds in [("a", FOREVER), ("b", 0)]]
    for done in gevent.iwait(fibers, timeout=SHORT):
        say(done.value)
    say("over")
    gevent.killall(fibers)


def iwait_gives_what_is_ready_first():
    early, late = gevent.spawn(after, 0, "early"), gevent.spawn(after, SHORT, "late")
    early.join()
    say([done.value for done in gevent.iwait([late, early])])


def an_event_wakes_all_in_order():
    event = Event()

    def waiter(name):
        event.wait()
        say(name)

    fibers = [gevent.spawn(waiter, name) for name in "abc"]
    gevent.sleep(0)
    event.set()
    say("set", event.is_set())
    gevent.joinall(fibers)


def an_event_that_is_set_is_not_waited_for():
    event = Event()
    event.set()
    gevent.spawn(say, "others run")
    say(event.wait())
    gevent.sleep(0)


def an_event_that_does_not_come():
    event = Event()
    say(event.wait(timeout=SHORT))
    say("set", event.is_set())


def an_event_cleared_at_once_still_wakes():
    event = Event()

    def waiter():
        event.wait()
        say("woken, set", event.is_set())

    fiber = gevent.spawn(waiter)
    gevent.sleep(0)
    event.set()
    event.clear()
    fiber.join(timeout=LONG)
    say("ready", fiber.ready())


def an_event_can_be_used_again():
    event = Event()
    event.set()
    event.clear()
    fiber = gevent.spawn(event.wait)
    gevent.sleep(0)
    say("ready", fiber.ready())
    event.set()
    fiber.join()
    say("ready", fiber.ready())


def a_result_goes_to_all_who_wait():
    result = AsyncResult()

    def waiter(name):
        say(name, result.get())

    fibers = [gevent.spawn(waiter, name) for name in "ab"]
    gevent.sleep(0)
    result.set("value")
    gevent.joinall(fibers)
    say("later", result.get())


def a_result_may_be_a_failure():
    result = AsyncResult()
    gevent.spawn(lambda: result.set_exception(ValueError("bad")))
    try:
        result.get()
    except ValueError as error:
        say("failed:", error)
    say("ready", result.ready(), "successful", result.successful(), "value", result.value)


def a_result_that_does_not_come():
    result = AsyncResult()
    try:
        result.get(timeout=SHORT)
    except Timeout:
        say("timed out")
    try:
        result.get(block=False)
    except Timeout:
        say("not yet")
    say("ready", result.ready(), "wait", result.wait(timeout=0))
    result.set("value")
    say("ready", result.ready(), "wait", result.wait(timeout=0))
