"""Being told of a fiber's end."""

import gevent
from gevent.event import AsyncResult

from said import FOREVER, after, fails, say


def links_run_in_order():
    fiber = gevent.spawn(after, 0, "value")
    fiber.link(lambda ended: say("first", ended.value))
    fiber.link(lambda ended: say("second", ended.value))
    fiber.join()
    gevent.sleep(0)


def links_run_after_the_fiber_not_within():
    def body():
        say("fiber ends")

    fiber = gevent.spawn(body)
    fiber.link(lambda _: say("link"))
    gevent.sleep(0)
    gevent.sleep(0)


def link_value_hears_successes_only():
    good, bad = gevent.spawn(after, 0, "value"), gevent.spawn(fails)
    for fiber in good, bad:
        fiber.link_value(lambda ended: say("link_value", ended.value))
    gevent.joinall([good, bad])
    gevent.sleep(0)


def link_exception_hears_failures_only():
    good, bad = gevent.spawn(after, 0, "value"), gevent.spawn(fails, "bad")
    for fiber in good, bad:
        fiber.link_exception(lambda ended: say("link_exception", ended.exception))
    gevent.joinall([good, bad])
    gevent.sleep(0)


def a_kill_is_a_success_to_links():
    fiber = gevent.spawn(gevent.sleep, FOREVER)
    fiber.link_value(lambda ended: say("link_value", ended.value))
    fiber.link_exception(lambda _: say("link_exception"))
    gevent.sleep(0)
    fiber.kill()
    gevent.sleep(0)


def a_kill_before_the_start_is_heard_too():
    fiber = gevent.spawn(say, "never")
    fiber.link(lambda ended: say("link", ended.value))
    fiber.kill()
    gevent.sleep(0)


def unlink_takes_a_link_back():
    fiber = gevent.spawn(after, 0, "value")
    callback = lambda _: say("never")  # noqa: E731
    fiber.link(callback)
    fiber.link(lambda _: say("stays"))
    fiber.unlink(callback)
    fiber.join()
    gevent.sleep(0)


def a_link_made_after_the_end_runs_soon():
    fiber = gevent.spawn(after, 0, "value")
    fiber.join()
    fiber.link(lambda ended: say("link", ended.value))
    say("linked")
    gevent.sleep(0)


def links_and_joiners_are_served_in_order():
    fiber = gevent.spawn(after, 0, "value")
    fiber.link(lambda _: say("link"))
    fiber.join()
    say("joiner")


def a_link_that_fails_does_not_stop_the_next():
    fiber = gevent.spawn(after, 0, "value")
    fiber.link(lambda _: fails())
    fiber.link(lambda _: say("next"))
    fiber.join()
    gevent.sleep(0)
    say("value", fiber.value)


def a_link_may_start_fibers():
    fiber = gevent.spawn(after, 0, "value")
    fiber.link(lambda ended: gevent.spawn(say, "started by a link", ended.value))
    fiber.join()
    gevent.sleep(0)
    gevent.sleep(0)


def a_result_may_be_linked_to_a_fiber():
    result = AsyncResult()
    gevent.spawn(after, 0, "value").link(result)
    say(result.get())
