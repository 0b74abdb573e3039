"""What Twisted does, scenario by scenario: the behaviour that Warren's reactor is held against.

Each scenario is a function that says lines, or a case in connections.txt. The same functions, in Rust, under the same
names, lie beside these files; both must say what stands in expected.txt.

    scenarios.py            prints what the scenarios say
    scenarios.py --check    compares it with expected.txt
    scenarios.py --write    writes expected.txt
"""

import inspect

import twisted
from twisted.internet import task
from twisted.logger import globalLogBeginner

import calls
import cancelling
import chains
import connections
import cooperating
import datagrams
import framing
import lists
import locks
import looping
import policies
import processes
import queues
import reconnecting
import services
import streams
import system
import timeouts
from said import finish, scenarios_of, take

TEXT = []
MODULES = [
    chains, cancelling, timeouts, lists, locks, queues, calls, services, datagrams, processes, streams, framing, policies,
    looping, cooperating, reconnecting, system,
]


async def run(_):
    lines = [f"What Twisted {twisted.__version__} does: scenarios.py wrote it."]
    for module in MODULES:
        for scenario in scenarios_of(module):
            waiting = scenario()
            if inspect.isawaitable(waiting):
                await waiting
            lines += ["", f"== {module.__name__}.{scenario.__name__}"] + take()
    for name, case in connections.cases():
        await connections.Case(case).run()
        lines += ["", f"== connections.{name}"] + take()
    TEXT.append("\n".join(lines) + "\n")


if __name__ == "__main__":
    # What nobody has handled is part of the scenarios.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    try:
        task.react(run)
    except SystemExit as end:
        if end.code:
            raise
    finish("Twisted", *TEXT)
