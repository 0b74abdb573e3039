"""Semaphores and locks."""

import gevent
from gevent.lock import BoundedSemaphore, RLock, Semaphore

from said import FOREVER, SHORT, fails, say


def a_semaphore_serves_in_order():
    semaphore = Semaphore(1)

    def worker(name):
        with semaphore:
            say(name, "in")
            gevent.sleep(0)
            say(name, "out")

    gevent.joinall([gevent.spawn(worker, name) for name in "abc"])


def a_semaphore_lets_as_many_in_as_it_has():
    semaphore = Semaphore(2)

    def worker(name):
        with semaphore:
            say(name, "in")
            gevent.sleep(0)
            say(name, "out")

    gevent.joinall([gevent.spawn(worker, name) for name in "abc"])


def a_semaphore_without_waiting():
    semaphore = Semaphore(1)
    say(semaphore.acquire(blocking=False), semaphore.acquire(blocking=False))
    semaphore.release()
    say(semaphore.acquire(blocking=False))


def a_semaphore_that_stays_taken():
    semaphore = Semaphore(0)
    say(semaphore.acquire(timeout=SHORT))
    semaphore.release()
    say(semaphore.acquire(timeout=SHORT))


def a_waiter_that_gave_up_takes_no_permit():
    semaphore = Semaphore(0)

    def patient():
        semaphore.acquire()
        say("patient")

    def hasty():
        say("hasty", semaphore.acquire(timeout=SHORT))

    first, second = gevent.spawn(hasty), gevent.spawn(patient)
    first.join()
    semaphore.release()
    second.join()
    say("left", semaphore.counter)


def a_killed_waiter_takes_no_permit():
    semaphore = Semaphore(0)
    first, second = gevent.spawn(semaphore.acquire), gevent.spawn(semaphore.acquire)
    gevent.sleep(0)
    first.kill()
    semaphore.release()
    second.join()
    say("left", semaphore.counter)


def a_holder_that_is_killed_gives_back():
    semaphore = Semaphore(1)

    def holder():
        with semaphore:
            gevent.sleep(FOREVER)

    fiber = gevent.spawn(holder)
    gevent.sleep(0)
    say("locked", semaphore.locked())
    fiber.kill()
    say("locked", semaphore.locked())


def a_holder_that_fails_gives_back():
    semaphore = Semaphore(1)

    def holder():
        with semaphore:
            fails()

    gevent.spawn(holder).join()
    say("locked", semaphore.locked())
    with semaphore:
        say("taken again")


def releases_add_up():
    semaphore = Semaphore(0)
    for _ in range(3):
        semaphore.release()
    say(semaphore.counter)
    say([semaphore.acquire(blocking=False) for _ in range(4)])


def two_releases_wake_two():
    semaphore = Semaphore(0)

    def worker(name):
        semaphore.acquire()
        say(name)

    fibers = [gevent.spawn(worker, name) for name in "abc"]
    gevent.sleep(0)
    semaphore.release()
    semaphore.release()
    gevent.sleep(SHORT)
    say("ready", [fiber.ready() for fiber in fibers])
    gevent.killall(fibers)


def a_bounded_semaphore_refuses_a_release_too_many():
    semaphore = BoundedSemaphore(1)
    semaphore.acquire()
    semaphore.release()
    try:
        semaphore.release()
    except ValueError:
        say("too many")
    say(semaphore.counter)


def an_rlock_is_taken_again_by_its_owner():
    lock = RLock()

    def other():
        with lock:
            say("other in")

    with lock:
        with lock:
            say("twice")
            fiber = gevent.spawn(other)
            gevent.sleep(0)
        say("still taken")
        gevent.sleep(0)
    say("free")
    fiber.join()


def an_rlock_refuses_another_fiber():
    lock = RLock()
    with lock:
        say("other", bool(gevent.spawn(lambda: lock.acquire(blocking=False)).get()))
        say("owner", bool(lock.acquire(blocking=False)))
        lock.release()


def an_rlock_serves_in_order():
    lock = RLock()

    def worker(name):
        with lock:
            with lock:
                say(name, "in")
                gevent.sleep(0)
                say(name, "out")

    gevent.joinall([gevent.spawn(worker, name) for name in "abc"])
