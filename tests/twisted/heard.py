"""What protocols are told, noted in order, so that a scenario can wait for something and say it all at the end."""

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from said import say, show

PATIENCE = 20


class Heard:
    def __init__(self):
        self.lines, self.waiting = [], []

    def put(self, *words):
        self.lines.append(" ".join(show(word) for word in words))
        for waiting in self.waiting[:]:
            if not waiting.called and waiting.line in self.lines:
                waiting.callback(None)

    async def until(self, line):
        """Waits until the line has been noted."""
        if line not in self.lines:
            waiting = Deferred()
            waiting.line = line
            self.waiting.append(waiting)
            await waiting.addTimeout(PATIENCE, reactor)
            self.waiting.remove(waiting)

    def say(self, name, unordered=()):
        """Says what was heard. Between neighbours that begin with one of `unordered` there is no order."""
        run = []
        for line in self.lines:
            if line.startswith(tuple(unordered)):
                run.append(line)
                continue
            self._say(name, sorted(run))
            run = []
            say(name, line)
        self._say(name, sorted(run))

    @staticmethod
    def _say(name, lines):
        for line in lines:
            say(name, line)


def soon(seconds=0.05):
    """Lets what is under way happen."""
    deferred = Deferred()
    reactor.callLater(seconds, deferred.callback, None)
    return deferred
