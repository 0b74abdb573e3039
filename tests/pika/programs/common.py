"""What every program here begins with: a connection to the broker that the tests name."""

import os
import sys

import pika


def connect():
    return pika.BlockingConnection(pika.URLParameters(os.environ["WARREN_TEST_AMQP_URL"]))


def say(text):
    print(text, flush=True)


def usage(text):
    sys.exit(f"usage: {sys.argv[0]} {text}")
