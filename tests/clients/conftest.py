"""Programs by others as tests. The broker under test is named by WARREN_TEST_AMQP_URL; the same tests run on Warren
and on RabbitMQ. Its operator's commands are WARREN_TEST_RESTART (on the same port, and back when it returns),
WARREN_TEST_ALARM (publishers are blocked) and WARREN_TEST_CALM (they are not)."""

import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER / "programs"))

# A program that hangs ends by itself before.
PATIENCE_S = 200


def run(*command, **options):
    """Runs a program to its end: what it printed. It fails as the program does."""
    ended = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S, **options)
    if ended.returncode:
        pytest.fail(f"{command[1:]} ended with {ended.returncode}\n{ended.stdout}", pytrace=False)
    return ended.stdout


@pytest.fixture(autouse=True)
def calm(request):
    """A test of alarms that fails leaves none behind."""
    yield
    if "alarm" in request.node.name and "WARREN_TEST_CALM" in os.environ:
        subprocess.run(os.environ["WARREN_TEST_CALM"], shell=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)


@pytest.fixture(scope="session")
def node_modules():
    """Where npm has put amqplib."""
    return os.environ["WARREN_TEST_NODE_MODULES"]


@pytest.fixture(scope="session")
def go_program(tmp_path_factory):
    """Our Go program, with the client as Debian has it."""
    folder = tmp_path_factory.mktemp("go")
    program = folder / "program"
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(folder / "cache"), "GOFLAGS": ""}
    run("go", "build", "-o", program, FOLDER / "programs" / "amqp091_program.go", env=env)
    return program


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory):
    """The class path of our Java program: itself, and the client as Debian has it."""
    folder = tmp_path_factory.mktemp("java")
    path = ":".join([str(folder), *(f"/usr/share/java/{name}.jar" for name in ("amqp-client", "slf4j-api", "slf4j-nop"))])
    run("javac", "-cp", path, "-d", folder, FOLDER / "programs" / "JavaProgram.java")
    return path
