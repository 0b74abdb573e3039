"""aio-pika: robust connections, patterns, transactions, dead letters, delays."""

import asyncio

import aio_pika
import aiormq
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.patterns import RPC, Master

from common import PATIENCE_S, URL, broker, main, new_name, until_async


async def _robust():
    return await aio_pika.connect_robust(URL, timeout=PATIENCE_S, reconnect_interval=0.1)


async def _take(queue):
    """The next message of a queue, acknowledged."""
    async with asyncio.timeout(PATIENCE_S):
        while (message := await queue.get(fail=False)) is None:
            await asyncio.sleep(0.02)
    await message.ack()
    return message


async def _survives(disturb):
    """A consumer of a robust connection, its queue and its binding are there again after `disturb(connection)`."""
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(new_name(), ExchangeType.TOPIC, auto_delete=True)
        queue = await channel.declare_queue(new_name(), auto_delete=True)
        await queue.bind(exchange, "a.#")
        got = []

        async def receive(message):
            async with message.process(ignore_processed=True):
                got.append(message.body)
        await queue.consume(receive)
        await exchange.publish(Message(b"before"), "a.b")
        await until_async(lambda: b"before" in got, "the message before")
        again = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *_: again.set())
        await disturb(connection)
        async with asyncio.timeout(PATIENCE_S):
            await again.wait()
            while b"after" not in got:
                try:
                    await exchange.publish(Message(b"after"), "a.b", timeout=5)
                except (aio_pika.exceptions.AMQPError, ConnectionError, RuntimeError, asyncio.TimeoutError):
                    pass
                await asyncio.sleep(0.05)


async def a_robust_consumer_survives_a_closed_connection():
    async def disturb(connection):
        other = await connection.channel()
        try:
            await other.channel.exchange_declare(new_name(), exchange_type="no-such-type")
        except (aio_pika.exceptions.AMQPError, asyncio.CancelledError):
            pass
    await _survives(disturb)


async def a_robust_consumer_survives_a_restart():
    async def disturb(_connection):
        await asyncio.to_thread(broker, "RESTART")
    await _survives(disturb)


async def remote_calls():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        rpc = await RPC.create(channel)
        name = new_name()

        async def multiply(*, x, y):
            if y == 0:
                raise ValueError("by zero")
            return x * y
        await rpc.register(name, multiply, auto_delete=True)
        assert await asyncio.gather(*(rpc.call(name, {"x": number, "y": 2}) for number in range(1, 20))) == [
            2 * number for number in range(1, 20)]
        try:
            await rpc.call(name, {"x": 1, "y": 0})
            raise AssertionError("the error did not come back")
        except ValueError as error:
            assert "by zero" in str(error)


async def a_call_that_nobody_takes_expires():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        rpc = await RPC.create(channel)
        queue = await channel.declare_queue(new_name(), auto_delete=True, arguments={"x-dead-letter-exchange": RPC.DLX_NAME})
        try:
            # The message expires, goes to the dead letters, and from there to the caller.
            await rpc.call(queue.name, {}, expiration=1)
            raise AssertionError("nobody answers")
        except TimeoutError:
            pass


async def masters_and_workers():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2)
        master, name, done = Master(channel), new_name(), []

        async def work(*, number):
            done.append(number)
        await master.create_worker(name, work, auto_delete=True)
        for number in range(10):
            await master.create_task(name, {"number": number})
        await until_async(lambda: sorted(done) == list(range(10)), "all tasks")


async def exchanges_of_all_types():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        names = {}
        for kind, key, arguments in [
            (ExchangeType.DIRECT, "key", None), (ExchangeType.FANOUT, "", None), (ExchangeType.TOPIC, "*.key.#", None),
            (ExchangeType.HEADERS, "", {"x-match": "all", "a": 1, "b": "two"}),
        ]:
            exchange = await channel.declare_exchange(new_name(), kind, auto_delete=True)
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, key, arguments=arguments)
            names[kind] = (exchange, queue)
        for kind, key, headers in [
            (ExchangeType.DIRECT, "key", {}), (ExchangeType.FANOUT, "any", {}), (ExchangeType.TOPIC, "a.key", {}),
            (ExchangeType.HEADERS, "", {"a": 1, "b": "two", "c": None}),
        ]:
            exchange, queue = names[kind]
            await exchange.publish(Message(kind.value.encode(), headers=headers), key)
            assert (await _take(queue)).body == kind.value.encode()
        # From exchange to exchange.
        target, queue = names[ExchangeType.FANOUT]
        source, _ = names[ExchangeType.DIRECT]
        await target.bind(source, "onward")
        await source.publish(Message(b"onward"), "onward")
        assert (await _take(queue)).routing_key == "onward"
        await target.unbind(source, "onward")
        strict = await connection.channel(on_return_raises=True)
        try:
            source = await strict.get_exchange(source.name)
            await source.publish(Message(b"nowhere"), "onward", mandatory=True)
            raise AssertionError("it is not routed")
        except aio_pika.exceptions.PublishError:
            pass


async def transactions():
    connection = await _robust()
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(exclusive=True)
        async with channel.transaction():
            await channel.default_exchange.publish(Message(b"committed"), queue.name)
        try:
            async with channel.transaction():
                await channel.default_exchange.publish(Message(b"rolled back"), queue.name)
                raise RuntimeError("the application's")
        except RuntimeError:
            pass
        message = await queue.get()
        assert (message.body, message.message_count) == (b"committed", 0)


async def dead_letters_say_where_they_died():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        graves = await channel.declare_exchange(new_name(), ExchangeType.FANOUT, auto_delete=True)
        dead = await channel.declare_queue(exclusive=True)
        await dead.bind(graves)
        queue = await channel.declare_queue(exclusive=True, arguments={"x-dead-letter-exchange": graves.name})
        await channel.default_exchange.publish(Message(b"bad", headers={"mine": 1}), queue.name)
        message = await queue.get(timeout=PATIENCE_S)
        await message.reject(requeue=False)
        message = await _take(dead)
        death = message.headers["x-death"][0]
        assert (death["reason"], death["queue"], death["count"], death["exchange"]) == ("rejected", queue.name, 1, "")
        assert message.headers["x-first-death-queue"] == queue.name
        assert message.headers["mine"] == 1


async def delays_by_expiring_messages():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        target = await channel.declare_queue(exclusive=True)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target.name}
        by_queue = await channel.declare_queue(exclusive=True, arguments={**arguments, "x-message-ttl": 50})
        by_message = await channel.declare_queue(exclusive=True, arguments=arguments)
        await channel.default_exchange.publish(Message(b"queue"), by_queue.name)
        await channel.default_exchange.publish(Message(b"message", expiration=0.1), by_message.name)
        got = {}
        for _ in range(2):
            message = await _take(target)
            got[message.body] = message.headers["x-death"][0]
        assert got[b"queue"]["reason"] == got[b"message"]["reason"] == "expired"
        assert got[b"message"]["original-expiration"] == "100"


async def priorities():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True, arguments={"x-max-priority": 10})
        for priority in [1, 9, 5, 9, 20]:
            await channel.default_exchange.publish(Message(str(priority).encode(), priority=priority), queue.name)
        assert [(await _take(queue)).body for _ in range(5)] == [b"20", b"9", b"9", b"5", b"1"]


async def iterating_a_queue_with_prefetch():
    connection = await _robust()
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=5)
        queue = await channel.declare_queue(exclusive=True)
        for number in range(100):
            mode = DeliveryMode.PERSISTENT if number % 2 else DeliveryMode.NOT_PERSISTENT
            await channel.default_exchange.publish(Message(str(number).encode(), delivery_mode=mode), queue.name)
        got = []
        async with asyncio.timeout(PATIENCE_S), queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    got.append(int(message.body))
                if len(got) == 100:
                    break
        assert got == list(range(100))


async def errors_by_their_classes():
    connection = await _robust()
    async with connection:
        for fail, error in [
            (lambda channel: channel.get_queue("nobody-" + new_name()), aio_pika.exceptions.ChannelNotFoundEntity),
            (lambda channel: channel.declare_queue("amq.mine"), aiormq.exceptions.ChannelAccessRefused),
        ]:
            channel = await connection.channel()
            try:
                await fail(channel)
                raise AssertionError("it is refused")
            except error:
                pass
        queue_name = new_name()
        channel = await connection.channel()
        await channel.declare_queue(queue_name, exclusive=True)
        try:
            await channel.declare_queue(queue_name, exclusive=True, arguments={"x-max-priority": 3})
            raise AssertionError("it is another queue")
        except aio_pika.exceptions.ChannelPreconditionFailed:
            pass


if __name__ == "__main__":
    main(globals())
