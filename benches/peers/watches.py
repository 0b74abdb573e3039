"""How the peers that are written in Python measure themselves."""

import time


class Stopwatch:
    """What is done from its start on, in nanoseconds per operation."""

    def __init__(self):
        self.start = time.perf_counter_ns()

    def per(self, operations):
        return [(time.perf_counter_ns() - self.start) / operations]


class ProcessorWatch:
    """The same by the processor time of this process, in operations per second."""

    def __init__(self):
        self.start = time.process_time_ns()

    def per_second(self, operations):
        return [operations * 1e9 / (time.process_time_ns() - self.start)]


def memory():
    """Bytes: resident, page tables."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return [1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmPTE")]
