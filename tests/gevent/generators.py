"""Generators, which Python has built in."""

from itertools import islice, takewhile

from said import say


def a_generator_runs_as_it_is_asked():
    def body():
        for item in 1, 2:
            say("yielding", item)
            yield item
        say("returning")

    generator = body()
    say("made")
    say(next(generator))
    say(next(generator))
    say(next(generator, None))
    say(next(generator, None))


def values_are_sent_in():
    def body():
        total = 0
        while True:
            total += yield total

    generator = body()
    say(next(generator), generator.send(1), generator.send(10))


def next_sends_nothing():
    def body():
        say("sent", (yield 1))
        say("sent", (yield 2))

    generator = body()
    next(generator)
    next(generator)
    try:
        generator.send("value")
    except StopIteration:
        say("over")


def a_throw_may_be_caught():
    def body():
        try:
            yield 1
        except ValueError as error:
            yield f"caught {error}"

    generator = body()
    say(next(generator))
    say(generator.throw(ValueError("thrown")))
    say(next(generator, None))


def a_throw_that_is_not_caught_comes_back():
    def body():
        try:
            yield 1
        finally:
            say("cleans up")

    generator = body()
    next(generator)
    try:
        generator.throw(ValueError("thrown"))
    except ValueError as error:
        say("failed:", error)
    say(next(generator, None))


def a_throw_before_the_start_never_runs_it():
    def body():
        say("never")
        yield 1

    generator = body()
    try:
        generator.throw(ValueError("thrown"))
    except ValueError as error:
        say("failed:", error)
    say(next(generator, None))


def close_cleans_up():
    def body():
        try:
            yield 1
            say("never")
        finally:
            say("cleans up")

    generator = body()
    next(generator)
    generator.close()
    say("closed")
    generator.close()
    say(next(generator, None))


def close_before_the_start_never_runs_it():
    def body():
        say("never")
        yield 1

    generator = body()
    generator.close()
    say(next(generator, None))


def a_dropped_generator_cleans_up():
    def body():
        try:
            yield 1
        finally:
            say("cleans up")

    generator = body()
    next(generator)
    del generator
    say("dropped")


def a_failure_ends_a_generator():
    def body():
        yield 1
        raise ValueError("bad")

    generator = body()
    say(next(generator))
    try:
        next(generator)
    except ValueError as error:
        say("failed:", error)
    say(next(generator, None))


def yield_from_another_generator():
    def inner():
        yield 1
        yield 2
        say("inner is over")

    def outer():
        yield 0
        yield from inner()
        yield 3

    say(list(outer()))


def yield_from_a_list():
    def body():
        yield from [1, 2]
        yield 3

    say(list(body()))


def yield_from_passes_what_is_sent():
    def inner():
        say("inner got", (yield "a"))
        say("inner got", (yield "b"))
        return "result"

    def outer():
        result = yield from inner()
        yield result

    generator = outer()
    say(next(generator))
    say(generator.send(1))
    say(generator.send(2))


def yield_from_passes_what_is_thrown():
    def inner():
        try:
            yield "a"
        except ValueError as error:
            yield f"inner caught {error}"

    def outer():
        yield from inner()
        yield "outer"

    generator = outer()
    say(next(generator))
    say(generator.throw(ValueError("thrown")))
    say(next(generator))


def generators_take_turns():
    def body(name):
        for step in range(2):
            yield f"{name} {step}"

    for pair in zip(body("a"), body("b")):
        say(*pair)


def an_endless_generator_is_cut():
    def body():
        item = 0
        while True:
            yield item
            item += 1

    say(list(islice(body(), 3)))
    say(list(takewhile(lambda item: item < 4, body())))


def a_generator_within_a_generator():
    def numbers(limit):
        yield from range(limit)

    def squares(limit):
        for number in numbers(limit):
            yield number * number

    say(list(squares(4)))
