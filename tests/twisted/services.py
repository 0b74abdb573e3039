"""In which order services start and stop."""

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred

from said import say, yes_if_it_works


class _Told(Service):
    """Says what it is told. Stops when its job is through, if it has one."""

    def __init__(self, name, job=None):
        self.setName(name)
        self.job = job

    def privilegedStartService(self):
        super().privilegedStartService()
        say("privileged", self.name)

    def startService(self):
        super().startService()
        say("start", self.name)

    def stopService(self):
        super().stopService()
        say("stop", self.name)
        return self.job


def _tree(*names):
    tree = MultiService()
    for name in names:
        _Told(name).setServiceParent(tree)
    return tree


def _start(tree):
    # Without the first Warren would do it for itself: no service is started without.
    tree.privilegedStartService()
    tree.startService()


def in_order_and_back():
    tree = _tree("a", "b", "c")
    _start(tree)
    tree.stopService().addCallback(lambda _: say("all stopped"))


def stopping_waits_for_all():
    jobs = [Deferred(), Deferred()]
    tree = MultiService()
    for name, job in zip("ab", jobs):
        _Told(name, job).setServiceParent(tree)
    _start(tree)
    tree.stopService().addCallback(lambda _: say("all stopped"))
    say("first job")
    jobs[0].callback(None)
    say("second job")
    jobs[1].callback(None)


def trees_in_trees():
    tree, inner = _tree("a"), _tree("b", "c")
    inner.setServiceParent(tree)
    _Told("d").setServiceParent(tree)
    _start(tree)
    tree.stopService()


def one_that_is_added_to_a_running_tree():
    tree = _tree("a")
    _start(tree)
    late = _Told("b")
    late.setServiceParent(tree)
    say("running", bool(late.running))
    tree.stopService()


def one_that_is_removed_from_a_running_tree():
    tree = _tree("a", "b")
    _start(tree)
    tree.removeService(tree.getServiceNamed("a"))
    say("removed")
    tree.stopService()


def names_are_unique():
    tree = _tree("a")
    say("second", yes_if_it_works(lambda: _Told("a").setServiceParent(tree)))


def found_by_name():
    tree = _tree("a", "b")
    say("found", tree.getServiceNamed("b").name)
    say("none", yes_if_it_works(lambda: tree.getServiceNamed("c")))
