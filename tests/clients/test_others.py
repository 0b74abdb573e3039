"""Clients of other languages, a process for each scenario: amqplib for Node, Bunny for Ruby, php-amqplib, amqp091-go, and RabbitMQ's
own client for Java."""

import os
import re

import pytest

from conftest import FOLDER, run

PROGRAMS = FOLDER / "programs"


def scenarios(program, pattern):
    """The names that a program gives to its scenarios."""
    found = re.findall(pattern, (PROGRAMS / program).read_text(), re.MULTILINE)
    assert found
    return pytest.mark.parametrize("scenario", found)


@scenarios("amqplib_program.js", r"^scenarios\.(\w+) =")
def test_node(scenario, node_modules):
    assert run("node", PROGRAMS / "amqplib_program.js", scenario, env={**os.environ, "NODE_PATH": node_modules}).endswith("held\n")


@scenarios("bunny_program.rb", r"^scenario\('(\w+)'")
def test_ruby(scenario):
    assert run("ruby", PROGRAMS / "bunny_program.rb", scenario).endswith("held\n")


@scenarios("php_program.php", r"^\$scenarios\['(\w+)'\]")
def test_php(scenario):
    assert run("php", PROGRAMS / "php_program.php", scenario).endswith("held\n")


@scenarios("amqp091_program.go", r'^\tscenarios\["(\w+)"\]')
def test_go(scenario, go_program):
    assert run(go_program, scenario).endswith("held\n")


@scenarios("JavaProgram.java", r'SCENARIOS\.put\("(\w+)"')
def test_java(scenario, java_classes):
    assert run("java", "-cp", java_classes, "JavaProgram", scenario).endswith("held\n")
