"""Who takes, who puts."""

from twisted.internet.defer import DeferredQueue, QueueOverflow, QueueUnderflow

from said import end, say, step


def put_before():
    queue = DeferredQueue()
    queue.put(1)
    queue.put(2)
    end(queue.get())
    end(queue.get())


def put_after():
    queue = DeferredQueue()
    first, second = queue.get().addCallback(step("first")), queue.get().addCallback(step("second"))
    queue.put(1)
    say("put one")
    queue.put(2)
    end(first)
    end(second)


def full():
    queue = DeferredQueue(size=1)
    queue.put(1)
    try:
        queue.put(2)
    except QueueOverflow:
        say("overflow")
    end(queue.get())
    queue.put(3)
    end(queue.get())


def full_but_somebody_waits():
    queue = DeferredQueue(size=0)
    waiting = queue.get()
    queue.put(1)
    end(waiting)
    try:
        queue.put(2)
    except QueueOverflow:
        say("overflow")


def too_many_wait():
    queue = DeferredQueue(backlog=1)
    waiting = queue.get()
    try:
        queue.get()
    except QueueUnderflow:
        say("underflow")
    queue.put(1)
    end(waiting)


def nobody_may_wait():
    queue = DeferredQueue(backlog=0)
    try:
        queue.get()
    except QueueUnderflow:
        say("underflow")
    queue.put(1)
    end(queue.get())


def one_that_waits_is_cancelled():
    queue = DeferredQueue(backlog=2)
    first, second = queue.get(), queue.get()
    first.cancel()
    end(first)
    queue.put(1)
    end(second)


def a_callback_takes_again():
    queue = DeferredQueue()

    def take(value):
        say("took", value)
        return queue.get()

    deferred = queue.get().addCallback(take).addCallback(step("then"))
    queue.put(1)
    queue.put(2)
    end(deferred)
