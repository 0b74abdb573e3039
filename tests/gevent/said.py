"""What scenarios have in common, and small things that many of them need."""

import pathlib
import sys

import gevent

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

from compared import SHOWN, finish, say, scenarios_of, take

SHOWN.append((gevent.GreenletExit, lambda _: "killed"))

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
