"""Queues and channels."""

import gevent
from gevent.queue import (
    Channel, Empty, Full, JoinableQueue, LifoQueue, PriorityQueue, Queue, ShutDown,
)

from said import LONG, SHORT, say


def first_in_first_out():
    queue = Queue()
    for item in 1, 2, 3:
        queue.put(item)
    say(queue.qsize(), "items")
    say([queue.get() for _ in range(3)])
    say("empty", queue.empty())


def last_in_first_out():
    queue = LifoQueue()
    for item in 1, 2, 3:
        queue.put(item)
    say([queue.get() for _ in range(3)])


def the_least_first():
    queue = PriorityQueue()
    for item in 3, 1, 2, 1:
        queue.put(item)
    say([queue.get() for _ in range(4)])


def a_getter_waits_for_a_putter():
    queue = Queue()

    def getter():
        say("got", queue.get())

    fiber = gevent.spawn(getter)
    gevent.sleep(0)
    say("putting")
    queue.put("item")
    say("put")
    fiber.join()


def getters_are_served_in_order():
    queue = Queue()

    def getter(name):
        say(name, "got", queue.get())

    fibers = [gevent.spawn(getter, name) for name in "abc"]
    gevent.sleep(0)
    for item in 1, 2, 3:
        queue.put(item)
    gevent.joinall(fibers)


def a_full_queue_makes_the_putter_wait():
    queue = Queue(2)

    def putter():
        for item in 1, 2, 3:
            queue.put(item)
            say("put", item)

    fiber = gevent.spawn(putter)
    gevent.sleep(0)
    say("full", queue.full(), "ready", fiber.ready())
    say("got", queue.get())
    fiber.join()
    say(queue.qsize(), "items")


def putters_are_served_in_order():
    queue = Queue(1)
    queue.put(0)
    fibers = [gevent.spawn(queue.put, item) for item in (1, 2, 3)]
    gevent.sleep(0)
    say([queue.get() for _ in range(4)])
    gevent.joinall(fibers)


def without_waiting():
    queue = Queue(1)
    try:
        queue.get_nowait()
    except Empty:
        say("empty")
    queue.put_nowait(1)
    try:
        queue.put_nowait(2)
    except Full:
        say("full")
    say(queue.get_nowait())


def with_a_timeout():
    queue = Queue(1)
    try:
        queue.get(timeout=SHORT)
    except Empty:
        say("empty")
    queue.put(1, timeout=SHORT)
    try:
        queue.put(2, timeout=SHORT)
    except Full:
        say("full")
    say(queue.qsize(), "items")


def peek_leaves_the_item():
    queue = Queue()
    queue.put(1)
    queue.put(2)
    say(queue.peek(), queue.peek(), queue.get(), queue.get())


def a_killed_getter_takes_nothing():
    queue = Queue()

    def getter(name):
        say(name, "got", queue.get())

    first, second = gevent.spawn(getter, "first"), gevent.spawn(getter, "second")
    gevent.sleep(0)
    first.kill()
    queue.put(1)
    second.join()


def a_killed_putter_puts_nothing():
    queue = Queue(1)
    queue.put(1)
    fiber = gevent.spawn(queue.put, 2)
    gevent.sleep(0)
    fiber.kill()
    say(queue.get())
    gevent.sleep(0)
    say("empty", queue.empty())


def a_getter_that_gave_up_takes_nothing():
    queue = Queue()

    def hasty():
        try:
            queue.get(timeout=SHORT)
        except Empty:
            say("gave up")

    gevent.spawn(hasty).join()
    queue.put(1)
    gevent.sleep(0)
    say(queue.qsize(), "item")


def a_producer_and_a_consumer():
    queue = Queue(1)

    def producer():
        for item in range(3):
            queue.put(item)
        # gevent forgets the last item when the queue is shut down while it is on its way.
        gevent.sleep(SHORT)
        queue.shutdown()

    def consumer():
        try:
            while True:
                say("got", queue.get())
        except ShutDown:
            say("over")

    gevent.joinall([gevent.spawn(producer), gevent.spawn(consumer)])


def shutdown_lets_getters_empty_it():
    queue = Queue()
    queue.put(1)
    queue.put(2)
    queue.shutdown()
    try:
        queue.put(3)
    except ShutDown:
        say("put refused")
    say(queue.get(), queue.get())
    try:
        queue.get()
    except ShutDown:
        say("get refused")


def shutdown_at_once_drops_the_items():
    queue = Queue()
    queue.put(1)
    queue.shutdown(immediate=True)
    try:
        queue.get()
    except ShutDown:
        say("get refused")


def shutdown_wakes_those_who_get():
    queue = Queue()

    def getter(name):
        try:
            queue.get()
        except ShutDown:
            say(name, "refused")

    fibers = [gevent.spawn(getter, name) for name in "ab"]
    gevent.sleep(0)
    queue.shutdown()
    gevent.joinall(fibers)


def shutdown_wakes_those_who_put():
    queue = Queue(1)
    queue.put(1)

    def putter(name):
        try:
            queue.put(name)
        except ShutDown:
            say(name, "refused")

    fibers = [gevent.spawn(putter, name) for name in "ab"]
    gevent.sleep(0)
    queue.shutdown()
    gevent.joinall(fibers)
    say(queue.qsize(), "item")


def join_waits_for_all_tasks():
    queue = JoinableQueue()

    def worker():
        while True:
            item = queue.get()
            gevent.sleep(0)
            say("done", item)
            queue.task_done()

    fiber = gevent.spawn(worker)
    for item in 1, 2:
        queue.put(item)
    queue.join()
    say("joined")
    fiber.kill()


def join_of_an_untouched_queue_returns():
    queue = JoinableQueue()
    say(queue.join())
    queue.put(1)
    say(queue.join(timeout=SHORT))
    queue.get()
    say(queue.join(timeout=SHORT))
    queue.task_done()
    say(queue.join())


def a_task_done_too_many():
    queue = JoinableQueue()
    queue.put(1)
    queue.task_done()
    try:
        queue.task_done()
    except ValueError:
        say("too many")


def unfinished_tasks_are_counted():
    queue = JoinableQueue()
    queue.put(1)
    queue.put(2)
    queue.get()
    say(queue.unfinished_tasks, "unfinished")
    queue.task_done()
    say(queue.unfinished_tasks, "unfinished")


def a_channel_passes_from_hand_to_hand():
    channel = Channel()

    def putter():
        for item in 1, 2:
            say("putting", item)
            channel.put(item)
            say("put", item)

    fiber = gevent.spawn(putter)
    gevent.sleep(0)
    say("getting")
    say("got", channel.get())
    say("got", channel.get())
    fiber.join()


def a_channel_holds_nothing():
    channel = Channel()
    try:
        channel.put_nowait(1)
    except Full:
        say("nobody gets")
    try:
        channel.get_nowait()
    except Empty:
        say("nobody puts")
    try:
        channel.put(1, timeout=SHORT)
    except Full:
        say("nobody got")
    try:
        channel.get(timeout=SHORT)
    except Empty:
        say("nobody put")


def a_channel_serves_in_order():
    channel = Channel()
    fibers = [gevent.spawn(channel.put, item) for item in (1, 2, 3)]
    gevent.sleep(0)
    say([channel.get() for _ in range(3)])
    gevent.joinall(fibers)


def a_channel_with_a_getter_takes_at_once():
    channel = Channel()
    fiber = gevent.spawn(channel.get)
    gevent.sleep(0)
    channel.put_nowait("item")
    say(fiber.get())


def a_putter_of_a_channel_that_gave_up_leaves_nothing():
    channel = Channel()

    def hasty():
        try:
            channel.put(1, timeout=SHORT)
        except Full:
            say("gave up")

    gevent.spawn(hasty).join()
    fiber = gevent.spawn(channel.get)
    gevent.sleep(LONG)
    say("ready", fiber.ready())
    fiber.kill()
