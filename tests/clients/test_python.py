"""The Python programs, a process for each scenario."""

import ast
import sys

import pytest

from conftest import FOLDER, run


def scenarios():
    """What the programs say of themselves, read and not imported: program, scenario, variant."""
    for path in sorted((FOLDER / "programs").glob("*_program.py")):
        tree = ast.parse(path.read_text())
        names = [
            each.name for each in tree.body
            if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and each.name[0] != "_"
        ]
        variants = [[]]
        for each in tree.body:
            if isinstance(each, ast.Assign) and each.targets[0].id == "VARIANTS":
                variants = [[key.value] for key in each.value.keys]
        for name in names:
            for variant in variants:
                yield pytest.param([path, name, *variant], id="-".join([path.stem.removesuffix("_program"), name, *variant]))


@pytest.mark.parametrize("words", list(scenarios()))
def test_python(words):
    assert run(sys.executable, *words).endswith("held\n")
