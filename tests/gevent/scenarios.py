"""What gevent and greenlet do, scenario by scenario: the behaviour that Warren's fibers are held against.

Each scenario is a function that says lines. The same functions, in Rust, under the same names, lie beside these
files; both must say what stands in expected.txt.

    scenarios.py            prints what the scenarios say
    scenarios.py --check    compares it with expected.txt
    scenarios.py --write    writes expected.txt
"""

import difflib
import pathlib
import sys

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
from said import scenarios_of, take

MODULES = [
    fibers, ending, links, waiting, timeouts, locks, queues, pools, greenlets, generators,
]
EXPECTED = pathlib.Path(__file__).with_name("expected.txt")


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


def main():
    text = run()
    match sys.argv[1:]:
        case []:
            print(text, end="")
        case ["--write"]:
            EXPECTED.write_text(text)
        case ["--check"]:
            expected = EXPECTED.read_text()
            if text != expected:
                difference = difflib.unified_diff(
                    expected.splitlines(), text.splitlines(), "expected.txt", "gevent", lineterm="")
                print("\n".join(difference))
                sys.exit(1)
            print(f"gevent does what expected.txt says, {text.count('== ')} scenarios")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
