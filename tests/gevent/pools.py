"""Groups and pools."""

import gevent
from gevent.pool import Group, Pool, PoolFull

from said import FOREVER, SHORT, after, fails, say


def a_group_is_joined_as_one():
    group = Group()
    for name in "ab":
        group.spawn(say, name)
    say(len(group), "in the group")
    group.join()
    say(len(group), "in the group")


def a_group_forgets_those_who_ended():
    group = Group()
    group.spawn(after, 0, "a")
    group.spawn(after, FOREVER, "b")
    gevent.sleep(SHORT)
    say(len(group), "in the group")
    group.kill()


def a_group_is_killed_as_one():
    group = Group()

    def body(name):
        try:
            gevent.sleep(FOREVER)
        finally:
            say(name, "cleans up")

    group.spawn(body, "a")
    gevent.sleep(0)
    group.kill()
    say(len(group), "in the group")


def a_group_join_gives_up_after_a_timeout():
    group = Group()
    group.spawn(after, FOREVER, "a")
    group.join(timeout=SHORT)
    say(len(group), "in the group")
    group.kill()


def a_group_maps_in_order():
    group = Group()
    say(group.map(lambda item: after((3 - item) * SHORT, item * item), [0, 1, 2]))


def a_group_applies():
    group = Group()
    say(group.apply(lambda a, b: a + b, (1, 2)))


def a_failure_in_a_map_is_raised():
    group = Group()

    def body(item):
        if item == 1:
            raise ValueError(f"bad {item}")
        return item

    try:
        group.map(body, range(3))
    except ValueError as error:
        say("failed:", error)


def a_pool_runs_as_many_as_it_may():
    pool = Pool(2)

    def body(name):
        say(name, "in")
        gevent.sleep(SHORT)
        say(name, "out")

    for name in "abcd":
        pool.spawn(body, name)
    pool.join()


def spawn_waits_for_a_place():
    pool = Pool(1)
    pool.spawn(after, 0, "a")
    say("first spawned")
    pool.spawn(say, "b")
    say("second spawned")
    pool.join()


def a_full_pool():
    pool = Pool(2)
    say("full", pool.full(), "free", pool.free_count())
    pool.spawn(after, FOREVER, "a")
    say("full", pool.full(), "free", pool.free_count())
    pool.spawn(after, FOREVER, "b")
    say("full", pool.full(), "free", pool.free_count())
    pool.kill()
    say("full", pool.full(), "free", pool.free_count())


def a_full_pool_refuses_who_will_not_wait():
    pool = Pool(1)
    pool.spawn(after, FOREVER, "a")
    try:
        pool.start(gevent.Greenlet(say, "never"), blocking=False)
    except PoolFull:
        say("full")
    pool.kill()


def wait_available_waits_for_a_place():
    pool = Pool(1)
    pool.spawn(after, 0, "a")
    say("free", pool.free_count())
    pool.wait_available()
    say("free", pool.free_count())


def a_place_is_given_back_on_failure_and_kill():
    pool = Pool(1)
    pool.spawn(fails)
    second = pool.spawn(after, FOREVER, "b")
    say("failed made room")
    second.kill()
    pool.spawn(say, "kill made room")
    pool.join()


def a_pool_maps_in_order():
    pool = Pool(2)
    say(pool.map(lambda item: after((3 - item) * SHORT, item * item), [0, 1, 2]))


def imap_gives_in_order():
    pool = Pool(3)
    delays = {"a": 0.03, "b": 0.01, "c": 0.02}
    for value in pool.imap(lambda name: after(delays[name], name), "abc"):
        say(value)


def imap_unordered_gives_as_they_end():
    pool = Pool(3)
    delays = {"a": 0.03, "b": 0.01, "c": 0.02}
    for value in pool.imap_unordered(lambda name: after(delays[name], name), "abc"):
        say(value)


def imap_is_bounded_by_the_pool():
    pool = Pool(2)
    running = []

    def body(item):
        running.append(item)
        say("at most two", len(running) <= 2)
        gevent.sleep(0)
        running.remove(item)
        return item

    say(list(pool.imap(body, range(4))))


def imap_raises_at_the_place_of_the_failure():
    pool = Pool(2)

    def body(item):
        if item == 1:
            raise ValueError(f"bad {item}")
        return item

    values = iter(pool.imap(body, range(3)))
    say(next(values))
    try:
        next(values)
    except ValueError as error:
        say("failed:", error)
    say(next(values))


def apply_async_gives_a_fiber():
    pool = Pool(1)
    fiber = pool.apply_async(after, (0, "value"))
    say("ready", fiber.ready())
    say(fiber.get())


def apply_waits_for_the_value():
    say(Pool(1).apply(after, (SHORT, "value")))


def a_pool_is_killed_as_one():
    pool = Pool(2)
    fibers = [pool.spawn(after, FOREVER, name) for name in "ab"]
    gevent.sleep(0)
    pool.kill()
    say([fiber.value for fiber in fibers], len(pool), "in the pool")
