"""Behaviour compared with another library's: what the Python halves in tests/gevent and tests/twisted share.

A scenario is a function that says lines. The same function, in Rust, under the same name, lies beside it; both must
say what stands in expected.txt.
"""

import difflib
import inspect
import pathlib
import sys

LINES = []
# Types that are shown otherwise than `str` does, with what shows them.
SHOWN = []


def say(*words):
    LINES.append(" ".join(show(word) for word in words))


def show(word):
    """As Rust shows it."""
    for type_, shown in SHOWN:
        if isinstance(word, type_):
            return shown(word)
    if word is None:
        return "none"
    if isinstance(word, bool):
        return "yes" if word else "no"
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


def finish(library, text):
    """Prints, writes or checks the text of all scenarios, as the command line says."""
    folder = pathlib.Path(sys.argv[0]).parent
    match sys.argv[1:]:
        case []:
            print(text, end="")
        case ["--write"]:
            (folder / "expected.txt").write_text(text)
        case ["--check"]:
            expected = (folder / "expected.txt").read_text()
            if text != expected:
                difference = difflib.unified_diff(
                    expected.splitlines(), text.splitlines(), "expected.txt", library, lineterm="")
                print("\n".join(difference))
                sys.exit(1)
            print(f"{library} does what expected.txt says, {text.count('== ')} scenarios")
        case _:
            sys.exit("scenarios.py [--write | --check]")
