"""Clients that connect again."""

from twisted.internet.protocol import ReconnectingClientFactory
from twisted.internet.task import Clock

from said import say


class Refused:
    """A connector whose connections are all refused."""

    def __init__(self, **settings):
        self.clock = Clock()
        self.factory = ReconnectingClientFactory()
        self.factory.clock = self.clock
        self.factory.jitter = None
        vars(self.factory).update(settings)

    def connect(self):
        say("connects")
        self.factory.clientConnectionFailed(self, None)

    def stopConnecting(self):
        pass

    def run(self):
        self.connect()
        while self.clock.getDelayedCalls():
            say("delay", int(self.factory.delay))
            self.clock.advance(self.factory.delay)
        say("retries", self.factory.retries)


def delays_that_grow():
    Refused(factor=2, maxRetries=4).run()


def the_longest_delay():
    Refused(factor=3, maxDelay=10, maxRetries=5).run()


def no_attempt_more():
    Refused(maxRetries=0).run()
