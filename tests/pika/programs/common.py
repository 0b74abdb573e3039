"""What every program here begins with: a connection to the broker that the tests name."""

import os
import sys

import pika


def connect():
    parameters = pika.URLParameters(os.environ["WARREN_TEST_AMQP_URL"])
    # A broker that starts on a loaded machine answers late.
    parameters.socket_timeout = parameters.stack_timeout = 90
    return pika.BlockingConnection(parameters)


def say(text):
    print(text, flush=True)


def usage(text):
    sys.exit(f"usage: {sys.argv[0]} {text}")
