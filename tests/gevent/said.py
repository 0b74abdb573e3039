"""What the running scenario has said, and small things that many of them need."""

import inspect

import gevent

LINES = []


def say(*words):
    LINES.append(" ".join(show(word) for word in words))


def show(word):
    """As Rust shows it."""
    if word is None:
        return "none"
    if isinstance(word, bool):
        return "yes" if word else "no"
    if isinstance(word, gevent.GreenletExit):
        return "killed"
    if isinstance(word, (list, tuple)):
        return "[" + ", ".join(show(each) for each in word) + "]"
    return str(word)


def take():
    said = LINES[:]
    LINES.clear()
    return said


def scenarios_of(module):
    """The functions of a module that have no underscore in front, in the order in which they stand there."""
    functions = [
        each for name, each in vars(module).items()
        if inspect.isfunction(each) and each.__module__ == module.__name__ and name[0] != "_"
    ]
    return sorted(functions, key=lambda each: each.__code__.co_firstlineno)


# A wait that is over before `LONG`, and one that no scenario waits for to the end.
SHORT = 0.01
LONG = 0.03
FOREVER = 60


def steps(name, count=2):
    """A fiber's body that says where it is and lets others run."""
    for step in range(count):
        say(name, step)
        gevent.sleep(0)


def after(seconds, value):
    """A fiber's body that gives a value after a time."""
    gevent.sleep(seconds)
    return value


def fails(message="no"):
    raise ValueError(message)
