"""amqplib for Node, a process for each scenario."""

import os
import re

import pytest

from conftest import FOLDER, run

PROGRAM = FOLDER / "programs" / "amqplib_program.js"
SCENARIOS = re.findall(r"^scenarios\.(\w+) =", PROGRAM.read_text(), re.MULTILINE)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_node(scenario, node_modules):
    assert run("node", PROGRAM, scenario, env={**os.environ, "NODE_PATH": node_modules}).endswith("held\n")
