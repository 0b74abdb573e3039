"""What every program here begins with: which broker, names, patience, and how its scenarios are run.

`python PROGRAM.py SCENARIO [VARIANT]` runs one scenario: a function of the program without an underscore in front. It
ends with 0 when the scenario held. A program that hangs says where, and fails.
"""

import asyncio
import faulthandler
import inspect
import os
import subprocess
import sys
import threading
import time
import traceback
import uuid

URL = os.environ["WARREN_TEST_AMQP_URL"]
PATIENCE_S = 90


def new_name():
    """A name that no other scenario uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


def until(true, what, pause=time.sleep):
    """Waits for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"never came: {what}"
        pause(0.02)


async def until_async(true, what):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.02)


def broker(command):
    """Does to the broker under test what only its operator can: `RESTART`, `ALARM` or `CALM`."""
    subprocess.run(os.environ[f"WARREN_TEST_{command}"], shell=True, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)


def broker_beside(command, then=lambda: None):
    """The same on a thread, for a loop goes on. When it fails, the program does."""
    def thread():
        try:
            broker(command)
            then()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    threading.Thread(target=thread).start()


def main(scenarios, variants=None):
    """Runs the scenario that the command line names."""
    faulthandler.dump_traceback_later(2 * PATIENCE_S, exit=True)
    scenario = scenarios[sys.argv[1]]
    arguments = [variants[sys.argv[2]]] if variants else []
    if inspect.iscoroutinefunction(scenario):
        asyncio.run(scenario(*arguments))
    else:
        scenario(*arguments)
    print("held")
