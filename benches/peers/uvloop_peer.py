"""The part of asyncio's protocols on uvloop in the scenarios of `benches/src/reactor/`, under the same names.

    uvloop_peer.py echo|requests          serves, and prints its address
    uvloop_peer.py SCENARIO N OPERATIONS  prints the figures
"""

import asyncio
import sys

import uvloop

from watches import ProcessorWatch

REQUEST_BYTES = 64
BATCH = 1_000


class Echo(asyncio.Protocol):
    # uvloop sets TCP_NODELAY itself.
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Requests(Echo):
    begun = b""

    def data_received(self, data):
        if self.begun:
            data = self.begun + data
        whole = len(data) // REQUEST_BYTES * REQUEST_BYTES
        for start in range(0, whole, REQUEST_BYTES):
            self.transport.write(data[start:start + REQUEST_BYTES])
        self.begun = data[whole:]


async def serve(protocol):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=4096)
    print("127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def nothing():
    pass


async def calls_cancelled(n, operations):
    loop = asyncio.get_running_loop()
    calls = [loop.call_later(30 + number % 1024 / 1000, nothing) for number in range(n)]
    await asyncio.sleep(0)
    rounds = max(1, operations // BATCH)
    watch = ProcessorWatch()
    for _ in range(rounds):
        for number in range(BATCH):
            loop.call_later(30 + number % 1024 / 1000, nothing).cancel()
        await asyncio.sleep(0)
    figures = watch.per_second(rounds * BATCH)
    for call in calls:
        call.cancel()
    return figures


async def calls_made(n, operations):
    loop = asyncio.get_running_loop()
    rounds = max(1, operations // n)
    left, done = 0, None

    def call():
        nonlocal left
        left -= 1
        if left == 0:
            done.set_result(None)

    watch = ProcessorWatch()
    for _ in range(rounds):
        left, done = n, loop.create_future()
        for _ in range(n):
            loop.call_later(0.001, call)
        await done
    return watch.per_second(rounds * n)


async def deferred(n, operations):
    loop = asyncio.get_running_loop()

    def step(future):
        return future.result() + 1

    rounds = max(1, operations // n)
    watch = ProcessorWatch()
    for _ in range(rounds):
        one = loop.create_future()
        for _ in range(n):
            one.add_done_callback(step)
        one.set_result(0)
        # The callbacks come with the next turn.
        await asyncio.sleep(0)
    return watch.per_second(rounds * n)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo"]:
            uvloop.run(serve(Echo))
        case ["requests"]:
            uvloop.run(serve(Requests))
        case [name, n, operations]:
            print(*uvloop.run(globals()[name.replace("-", "_")](int(n), int(operations))))
        case _:
            sys.exit(__doc__)
