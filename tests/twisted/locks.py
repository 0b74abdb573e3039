"""Who may go on, and when."""

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore

from said import end, pending, say, step


def one_at_a_time():
    lock = DeferredLock()
    for name in "abc":
        lock.acquire().addCallback(lambda _, name=name: say(name, "has it"))
    say("a gives it back")
    lock.release()
    say("b gives it back")
    lock.release()
    say("c gives it back")
    lock.release()
    say("locked", lock.locked)


def run_gives_it_back():
    lock = DeferredLock()
    job = Deferred().addCallback(step("job"))
    first = lock.run(lambda: job)
    second = lock.run(lambda: say("second runs"))
    say("waiting", len(lock.waiting))
    job.callback(1)
    end(first)
    end(second)
    say("locked", lock.locked)


def run_gives_it_back_when_it_fails():
    lock = DeferredLock()

    def bad():
        raise ValueError("bad")

    end(lock.run(bad))
    say("locked", lock.locked)
    end(lock.run(lambda: 2))


def one_that_waits_is_cancelled():
    lock = DeferredLock()
    lock.acquire()
    second, third = lock.acquire(), lock.acquire()
    second.cancel()
    end(second)
    say("waiting", len(lock.waiting))
    third.addCallback(lambda _: say("third has it"))
    lock.release()


def a_run_that_waits_is_cancelled():
    lock = DeferredLock()
    lock.acquire()
    run = lock.run(say, "never")
    run.cancel()
    end(run)
    lock.release()
    say("locked", lock.locked)


def a_run_is_cancelled():
    lock = DeferredLock()
    job = pending("job")
    run = lock.run(lambda: job)
    run.cancel()
    end(run)
    say("locked", lock.locked)


def as_many_as_the_semaphore_has():
    semaphore = DeferredSemaphore(2)
    for name in "abcd":
        semaphore.acquire().addCallback(lambda _, name=name: say(name, "goes on"))
    say("tokens", semaphore.tokens, "waiting", len(semaphore.waiting))
    semaphore.release()
    semaphore.release()
    say("tokens", semaphore.tokens, "waiting", len(semaphore.waiting))
    semaphore.release()
    say("tokens", semaphore.tokens)


def runs_within_a_semaphore():
    semaphore = DeferredSemaphore(2)
    jobs = [Deferred() for _ in range(4)]

    def start(number):
        say("starts", number)
        return jobs[number]

    for number in range(4):
        semaphore.run(start, number).addCallback(step("ended"))
    jobs[1].callback("one")
    jobs[0].callback("nought")
    jobs[3].callback("three")
    jobs[2].callback("two")
    say("tokens", semaphore.tokens)
