"""Greenlets by themselves, without a loop. greenlet's documentation is the list."""

import gc

from greenlet import GreenletExit, getcurrent, gettrace, greenlet, settrace

from said import fails, say


def switching_to_and_fro():
    def first():
        say(12)
        b.switch()
        say(34)

    def second():
        say(56)
        a.switch()
        say(78)

    a, b = greenlet(first), greenlet(second)
    a.switch()
    say("first dead", a.dead, "second dead", b.dead)


def values_are_passed():
    def body(value):
        say("first", value)
        value = getcurrent().parent.switch("a")
        say("second", value)
        return "b"

    g = greenlet(body)
    say(g.switch(1))
    say(g.switch(2))


def ping_and_pong():
    def player(name):
        def body(count):
            while count > 0:
                say(name, count)
                count = others[name].switch(count - 1)
            return "over"
        return body

    ping, pong = greenlet(player("ping")), greenlet(player("pong"))
    others = {"ping": pong, "pong": ping}
    say(ping.switch(4))


def a_circle_of_three():
    def body(name):
        def run(count):
            while True:
                say(name, count)
                if count == 0:
                    return "home"
                count = following[name].switch(count - 1)
        return run

    a, b, c = (greenlet(body(name)) for name in "abc")
    following = {"a": b, "b": c, "c": a}
    say(a.switch(5))


def a_return_goes_to_the_parent():
    def body(value):
        return value + 1

    g = greenlet(body)
    say(g.switch(1), "dead", g.dead)


def a_failure_goes_to_the_parent():
    g = greenlet(fails)
    try:
        g.switch("bad")
    except ValueError as error:
        say("failed:", error)
    say("dead", g.dead)


def a_failure_goes_to_the_parent_not_to_the_caller():
    def parent(_):
        try:
            getcurrent().parent.switch("waiting")
        except ValueError as error:
            return f"parent caught {error}"

    p = greenlet(parent)
    child = greenlet(fails, parent=p)
    say(p.switch(None))
    # Its parent is `p`, whoever switches to it.
    say(child.switch("bad"))


def switches_to_the_dead_go_to_the_parent():
    g = greenlet(lambda value: value)
    g.switch(1)
    say("dead", g.dead)
    say(g.switch("passed on"))


def switches_to_the_dead_go_to_a_living_ancestor():
    def grandparent(value):
        say("grandparent", value)
        value = getcurrent().parent.switch("waiting")
        say("grandparent", value)
        return "done"

    g = greenlet(grandparent)
    p = greenlet(lambda value: value, parent=g)
    child = greenlet(lambda value: value, parent=p)
    say(g.switch("start"))
    # Both die here: the child's value is the parent's first, the parent's goes to the grandparent.
    say(child.switch("through"))
    say("dead", child.dead, p.dead, g.dead)


def a_throw_may_be_caught_inside():
    def body(_):
        try:
            getcurrent().parent.switch("waiting")
        except ValueError as error:
            return f"caught {error}"

    g = greenlet(body)
    say(g.switch(None))
    say(g.throw(ValueError("thrown")))


def a_throw_not_caught_goes_to_the_parent():
    def body(_):
        try:
            getcurrent().parent.switch("waiting")
        finally:
            say("cleans up")

    g = greenlet(body)
    g.switch(None)
    try:
        g.throw(ValueError("thrown"))
    except ValueError as error:
        say("failed:", error)
    say("dead", g.dead)


def a_throw_kills_one_that_has_not_started():
    g = greenlet(lambda _: say("never"))
    try:
        g.throw(ValueError("thrown"))
    except ValueError as error:
        say("failed:", error)
    say("dead", g.dead)


def a_throw_at_the_dead_is_raised():
    g = greenlet(lambda value: value)
    g.switch(1)
    try:
        g.throw(ValueError("thrown"))
    except ValueError as error:
        say("failed:", error)


def an_exit_is_not_raised_in_the_parent():
    def body(_):
        try:
            getcurrent().parent.switch("waiting")
            say("never")
        finally:
            say("cleans up")

    g = greenlet(body)
    g.switch(None)
    say("came back", g.throw(GreenletExit("value")).args[0])
    say("dead", g.dead)


def an_exit_of_one_that_has_not_started():
    g = greenlet(lambda _: say("never"))
    say("came back", g.throw(GreenletExit("value")).args[0])
    say("dead", g.dead)


def an_exit_of_the_dead():
    g = greenlet(lambda value: value)
    g.switch(1)
    say("came back", g.throw(GreenletExit("value")).args[0])


def an_exit_may_be_swallowed():
    def body(_):
        try:
            getcurrent().parent.switch("waiting")
        except GreenletExit:
            say("swallowed")
        return getcurrent().parent.switch("still here")

    g = greenlet(body)
    say(g.switch(None))
    say(g.throw(GreenletExit("value")))
    say("dead", g.dead)
    say(g.switch("end"))


def a_dropped_greenlet_cleans_up():
    def body(_):
        parent = getcurrent().parent
        try:
            parent.switch("waiting")
            say("never")
        finally:
            say("cleans up")

    g = greenlet(body)
    g.switch(None)
    del g
    gc.collect()
    say("dropped")


def a_dropped_greenlet_that_has_not_started():
    g = greenlet(lambda _: say("never"))
    del g
    say("dropped")


def states_of_a_greenlet():
    def body(value):
        say("running: started", bool(g), "dead", g.dead)
        return value

    g = greenlet(body)
    say("new: started", bool(g), "dead", g.dead)
    g.switch(1)
    say("dead: started", bool(g), "dead", g.dead)


def states_of_a_suspended_greenlet():
    def body(_):
        getcurrent().parent.switch("waiting")

    g = greenlet(body)
    g.switch(None)
    say("started", bool(g), "dead", g.dead)


def the_parent_is_who_made_it():
    root = getcurrent()

    def outer(_):
        inner = greenlet(lambda value: value)
        say("inner's parent is the outer", inner.parent is o)
        return inner.switch("from the inner")

    o = greenlet(outer)
    say("the outer's parent is the root", o.parent is root)
    say(o.switch(None))


def a_child_returns_through_its_parents():
    def middle(value):
        child = greenlet(lambda value: f"{value} child")
        return child.switch(value) + " middle"

    say(greenlet(middle).switch("from"))


def a_parent_may_be_set():
    def body(value):
        return f"child of {value}"

    def new_parent(value):
        say("new parent got", value)
        return "end"

    p, child = greenlet(new_parent), greenlet(body)
    child.parent = p
    say("set", child.parent is p)
    say(child.switch("value"))
    say("dead", child.dead, p.dead)


def a_circle_of_parents_is_refused():
    a, b = greenlet(lambda value: value), greenlet(lambda value: value)
    b.parent = a
    try:
        a.parent = b
    except ValueError:
        say("refused")
    try:
        a.parent = a
    except ValueError:
        say("refused")


def the_current_greenlet():
    root = getcurrent()

    def body(_):
        say("itself", getcurrent() is g, "the root", getcurrent() is root)
        return "end"

    g = greenlet(body)
    g.switch(None)
    say("back in the root", getcurrent() is root)


def a_switch_to_oneself():
    def body(_):
        say("to itself", g.switch("value"))
        return "end"

    g = greenlet(body)
    say(g.switch(None))


def a_switch_from_deep_within():
    def down(depth):
        if depth == 0:
            return getcurrent().parent.switch("from the depth")
        return down(depth - 1)

    g = greenlet(lambda _: down(50))
    say(g.switch(None))
    say(g.switch("back in the depth"))


def greenlets_make_greenlets():
    def body(depth):
        say("depth", depth)
        if depth == 3:
            return "bottom"
        value = greenlet(body).switch(depth + 1)
        say("back at", depth)
        return value

    say(greenlet(body).switch(0))


def a_generator_made_of_a_greenlet():
    def body(_):
        for item in range(3):
            getcurrent().parent.switch(item)
        return "end"

    g = greenlet(body)
    while not g.dead:
        say(g.switch(None))


def switches_are_traced():
    def event(kind, arguments):
        origin, target = arguments
        events.append((kind, names.get(origin, "root"), names.get(target, "root")))

    def first(_):
        return b.switch(None)

    def second(_):
        raise ValueError("bad")

    events = []
    a = greenlet(first)
    b = greenlet(second, parent=a)
    names = {a: "a", b: "b"}
    before = settrace(event)
    try:
        a.switch(None)
    except ValueError:
        pass
    settrace(before)
    for kind, origin, target in events:
        say(kind, origin, "to", target)
    say("traced before", gettrace() is not None)


def a_failure_passes_through_parents():
    def middle(_):
        try:
            return greenlet(fails).switch("bad")
        finally:
            say("middle cleans up")

    try:
        greenlet(middle).switch(None)
    except ValueError as error:
        say("failed:", error)
