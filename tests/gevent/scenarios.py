"""What gevent and greenlet do, scenario by scenario: the behaviour that Warren's fibers are held against.

Each scenario is a function that says lines. The same functions, in Rust, under the same names, lie beside these
files; both must say what stands in expected.txt.

    scenarios.py            prints what the scenarios say
    scenarios.py --check    compares it with expected.txt
    scenarios.py --write    writes expected.txt
"""

import gevent
import greenlet

import ending
import fibers
import generators
import greenlets
import links
import locks
import pools
import queues
import timeouts
import waiting
from said import finish, scenarios_of, take

MODULES = [
    fibers, ending, links, waiting, timeouts, locks, queues, pools, greenlets, generators,
]


def run():
    # What a fiber dies of is printed by default. Here it is part of the scenarios.
    gevent.get_hub().exception_stream = None
    lines = [f"What gevent {gevent.__version__} and greenlet {greenlet.__version__} do: scenarios.py wrote it."]
    for module in MODULES:
        for scenario in scenarios_of(module):
            # In a fiber of its own, so that none can disturb the next one.
            gevent.spawn(scenario).get()
            lines += ["", f"== {module.__name__}.{scenario.__name__}"] + take()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    finish("gevent", run())
