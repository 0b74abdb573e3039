"""gevent's and greenlet's part of the scenarios of `benches/src/runtime/`, under the same names.

    gevent_peer.py echo                  an echo server, which prints its address
    gevent_peer.py SCENARIO N OPERATIONS  prints the figures
"""

import sys

import gevent
from gevent.event import Event
from gevent.queue import Queue
from gevent.server import StreamServer
from greenlet import getcurrent, greenlet

from watches import Stopwatch, memory


def switch(n, operations):
    if n == 0:
        def numbers():
            number = 0
            while True:
                yield number
                number += 1

        generator = numbers()
        watch = Stopwatch()
        for _ in range(operations):
            next(generator)
        return watch.per(operations)
    if n == 1:
        def body(number):
            parent = getcurrent().parent
            while True:
                number = parent.switch(number)

        pong = greenlet(body)
        watch = Stopwatch()
        for number in range(operations):
            pong.switch(number)
        return watch.per(operations)

    def pong_body(number):
        while True:
            number = ping.switch(number)

    def ping_body(_):
        for number in range(operations):
            pong.switch(number)

    ping, pong = greenlet(ping_body), greenlet(pong_body)
    watch = Stopwatch()
    ping.switch(0)
    return watch.per(operations)


def yield_(n, operations):
    each = operations // n

    def body():
        for _ in range(each):
            gevent.sleep(0)

    watch = Stopwatch()
    gevent.joinall([gevent.spawn(body) for _ in range(n)])
    return watch.per(each * n)


def spawn(n, operations):
    def body():
        return 1

    watch = Stopwatch()
    for _ in range(operations // n):
        if n == 1:
            gevent.spawn(body).get()
        else:
            gevent.joinall([gevent.spawn(body) for _ in range(n)])
    return watch.per(operations // n * n)


def parked(n, _):
    # A million take four times the memory of the machine's other peers and half a minute: left out.
    if n > 100_000:
        return []
    go = Event()
    before, watch = memory(), Stopwatch()
    fibers = [gevent.spawn(go.wait) for _ in range(n)]
    gevent.sleep(0)
    create, now = watch.per(n), memory()
    watch = Stopwatch()
    go.set()
    gevent.joinall(fibers)
    return [(now[0] - before[0]) / n / 1024, (now[1] - before[1]) / n] + create + watch.per(n)


def timers(n, operations, any_of_them=False):
    loop = gevent.get_hub().loop

    def nothing():
        pass

    def set_one(number):
        timer = loop.timer(30 + number % 1024 / 1000)
        timer.start(nothing)
        return timer

    table = [set_one(number) for number in range(n)]
    watch = Stopwatch()
    for number in range(operations):
        if any_of_them:
            index = number * 7_919 % n
            table[index].close()
            table[index] = set_one(number)
        else:
            set_one(number).close()
    figures = watch.per(operations)
    for timer in table:
        timer.close()
    return figures


def timers_any(n, operations):
    return timers(n, operations, any_of_them=True)


def channels(n, operations):
    if n == 0:
        there, back = Queue(1), Queue(1)

        def echo():
            while True:
                back.put(there.get())

        gevent.spawn(echo)
        watch = Stopwatch()
        for number in range(operations // 2):
            there.put(number)
            back.get()
        return watch.per(operations)

    queue = Queue(128)

    def put():
        for number in range(operations):
            queue.put(number)

    watch = Stopwatch()
    gevent.spawn(put)
    for _ in range(operations):
        queue.get()
    return watch.per(operations)


def kill(n, operations):
    class Guard:
        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    def sleep_within(frames):
        with Guard():
            if frames > 1:
                sleep_within(frames - 1)
            else:
                gevent.sleep(3_600)

    batch, spent = 1_000, 0
    rounds = max(1, operations // batch)
    for _ in range(rounds):
        fibers = [gevent.spawn(sleep_within, n) for _ in range(batch)]
        gevent.sleep(0)
        watch = Stopwatch()
        for fiber in fibers:
            fiber.kill()
        spent += watch.per(1)[0]
    return [spent / (rounds * batch)]


def offload(n, operations):
    each = operations // n
    pool = gevent.get_hub().threadpool

    def job():
        return 1

    def body():
        for _ in range(each):
            pool.apply(job)

    watch = Stopwatch()
    gevent.joinall([gevent.spawn(body) for _ in range(n)])
    return watch.per(each * n)


def serve():
    def echo(stream, _):
        while True:
            try:
                data = stream.recv(16 * 1024)
                if not data:
                    break
                stream.sendall(data)
            except OSError:
                break

    server = StreamServer(("127.0.0.1", 0), echo, backlog=4096)
    server.start()
    print(f"127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo"]:
            serve()
        case [name, n, operations]:
            scenario = {"yield": yield_}.get(name) or globals()[name.replace("-", "_")]
            print(*scenario(int(n), int(operations)))
        case _:
            sys.exit(__doc__)
