"""pika's adapters that call back: select, asyncio and gevent.

A scenario is a generator. It yields functions that take a callback, and goes on with what the callback is called with.
"""

import threading

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.gevent_connection import GeventConnection
from pika.adapters.select_connection import SelectConnection

from common import PATIENCE_S, URL, broker_beside, main, new_name

VARIANTS = {"select": SelectConnection, "asyncio": AsyncioConnection, "gevent": GeventConnection}


class _Story:
    """Runs a generator on a connection's loop."""

    def __init__(self, adapter, steps):
        self.adapter = adapter
        self.failure = None
        self.is_over = False
        self.on_close = None
        self.steps = steps(self)
        self.loop = None
        self.connection = None
        self.step(None)
        while not self.is_over:
            # A loop that was stopped by a connection that closed goes on with the next connection.
            self.loop.run_forever() if hasattr(self.loop, "run_forever") else self.loop.start()
        if self.failure:
            raise self.failure

    def step(self, value):
        try:
            start = self.steps.send(value)
        except BaseException as error:
            self.failure = None if isinstance(error, StopIteration) else error
            self.is_over = True
            if not self.failure and self.connection.is_open:
                self.connection.add_on_close_callback(lambda *_: self.loop.stop())
                self.connection.close()
            else:
                self.loop.stop()
        else:
            start(lambda *values: self.step(values))

    def connect(self, done):
        """Opens the connection: called back with it."""
        parameters = pika.URLParameters(URL)
        parameters.socket_timeout = parameters.stack_timeout = PATIENCE_S
        self.connection = self.adapter(
            parameters,
            on_open_callback=done,
            on_open_error_callback=lambda _, error: self.step_error(error),
            on_close_callback=lambda connection, reason: self.on_close and self.on_close(connection, reason),
            custom_ioloop=self.loop,
        )
        self.loop = self.connection.ioloop

    def step_error(self, error):
        self.failure, self.is_over = error, True
        self.loop.stop()

    def channel(self, done):
        self.connection.channel(on_open_callback=done)

    def closed(self, done):
        """Called back when the connection has closed."""
        self.on_close = done

    def threadsafe(self, callback):
        add = getattr(self.loop, "call_soon_threadsafe", None) or getattr(self.loop, "add_callback_threadsafe", None)
        (add or self.loop.add_callback)(callback)


def _open(story):
    """A generator that opens a connection and a channel."""
    yield story.connect
    channel, = yield story.channel
    return channel


def _collector(count, done):
    """A callback for basic_consume that calls `done` with the first so many messages."""
    messages = []

    def receive(_channel, method, properties, body):
        messages.append((method, properties, body))
        if len(messages) == count:
            done(messages)
    return receive


def consuming_with_prefetch_and_multiple_acks(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        yield lambda done: channel.queue_declare(name, auto_delete=True, callback=done)
        yield lambda done: channel.basic_qos(prefetch_count=10, callback=done)
        for number in range(100):
            channel.basic_publish("", name, str(number))
        got, tags = [], []

        def consume(done):
            def receive(_channel, method, _properties, body):
                got.append(int(body))
                tags.append(method.delivery_tag)
                # No more than the prefetch come before the first acknowledgement.
                if len(tags) == 10:
                    channel.basic_ack(tags[-1], multiple=True)
                    tags.clear()
                if len(got) == 100:
                    done()
            channel.basic_consume(name, receive)
        yield consume
        assert got == list(range(100))
        frame, = yield lambda done: channel.queue_declare(name, passive=True, callback=done)
        assert (frame.method.message_count, frame.method.consumer_count) == (0, 1)
    _Story(adapter, steps)


def publishing_with_confirms(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        yield lambda done: channel.queue_declare(name, durable=True, callback=done)
        open_tags = set(range(1, 301))
        confirmed = []

        def confirm(done):
            def receive(frame):
                assert isinstance(frame.method, pika.spec.Basic.Ack)
                tag = frame.method.delivery_tag
                open_tags.difference_update({each for each in open_tags if each <= tag} if frame.method.multiple else {tag})
                confirmed.append(tag)
                if not open_tags:
                    done()
            channel.confirm_delivery(receive, callback=lambda _: publish())

        def publish():
            for number in range(300):
                channel.basic_publish("", name, str(number), pika.BasicProperties(delivery_mode=1 + number % 2))
        yield confirm
        assert len(confirmed) <= 300
        frame, = yield lambda done: channel.queue_delete(name, callback=done)
        assert frame.method.message_count == 300
    _Story(adapter, steps)


def a_full_queue_refuses_with_nack(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
        yield lambda done: channel.queue_declare(name, exclusive=True, arguments=arguments, callback=done)
        answers = []

        def confirm(done):
            def receive(frame):
                method = frame.method
                first = answers[-1][0] + 1 if answers and method.multiple else method.delivery_tag
                first = 1 if method.multiple and not answers else first
                answers.extend((tag, method.NAME) for tag in range(first, method.delivery_tag + 1))
                if len(answers) == 3:
                    done()

            def publish(_):
                for _ in range(3):
                    channel.basic_publish("", name, b"x")
            channel.confirm_delivery(receive, callback=publish)
        yield confirm
        assert sorted(answers) == [(1, "Basic.Ack"), (2, "Basic.Ack"), (3, "Basic.Nack")]
    _Story(adapter, steps)


def unroutable_messages_are_returned_before_the_confirm(adapter):
    def steps(story):
        channel = yield from _open(story)
        events = []

        def publish(done):
            def returned(_channel, method, properties, body):
                events.append((method.reply_code, method.reply_text, method.routing_key, properties.message_id, body))

            def confirmed(frame):
                events.append(frame.method.NAME)
                done()
            channel.add_on_return_callback(returned)
            channel.confirm_delivery(confirmed, callback=lambda _: channel.basic_publish(
                "", "nobody-" + new_name(), b"body", pika.BasicProperties(message_id="7"), mandatory=True))
        yield publish
        assert [each[:2] if isinstance(each, tuple) else each for each in events] == [(312, "NO_ROUTE"), "Basic.Ack"]
        assert events[0][3:] == ("7", b"body")
    _Story(adapter, steps)


def a_consumer_is_told_when_its_queue_is_deleted(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        yield lambda done: channel.queue_declare(name, callback=done)
        yield lambda done: channel.basic_consume(name, print, consumer_tag="reader", callback=done)

        def delete(done):
            channel.add_on_cancel_callback(done)
            channel.queue_delete(name)
        frame, = yield delete
        assert frame.method.consumer_tag == "reader"
        # The channel lives on.
        yield lambda done: channel.queue_declare(name, exclusive=True, callback=done)
    _Story(adapter, steps)


def a_channel_that_the_broker_closed_is_opened_again(adapter):
    def steps(story):
        channel = yield from _open(story)

        def fail(done):
            channel.add_on_close_callback(done)
            channel.queue_declare("nobody-" + new_name(), passive=True)
        _, reason = yield fail
        assert isinstance(reason, pika.exceptions.ChannelClosedByBroker)
        assert reason.reply_code == 404
        again, = yield story.channel
        yield lambda done: again.queue_declare("", exclusive=True, callback=done)
    _Story(adapter, steps)


def reconnecting_when_the_broker_has_closed(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        yield lambda done: channel.queue_declare(name, callback=done)
        for number in range(3):
            channel.basic_publish("", name, str(number))
        unacked = yield lambda done: channel.basic_consume(name, _collector(3, done))
        assert [body for _, _, body in unacked[0]] == [b"0", b"1", b"2"]

        def fail(done):
            story.on_close = done
            # A fault of the whole connection.
            channel.exchange_declare(new_name(), "no-such-type")
        _, reason = yield fail
        assert isinstance(reason, pika.exceptions.ConnectionClosedByBroker)
        assert reason.reply_code == 503
        story.on_close = None
        channel = yield from _open(story)
        # They come again, in their order, and say so.
        again, = yield lambda done: channel.basic_consume(name, _collector(3, done))
        assert [(body, method.redelivered) for method, _, body in again] == [(b"0", True), (b"1", True), (b"2", True)]
        yield lambda done: channel.queue_delete(name, callback=done)
    _Story(adapter, steps)


def transactions(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        yield lambda done: channel.queue_declare(name, exclusive=True, callback=done)
        yield lambda done: channel.tx_select(done)
        channel.basic_publish("", name, b"rolled back")
        yield lambda done: channel.tx_rollback(done)
        channel.basic_publish("", name, b"committed")
        frame, = yield lambda done: channel.queue_declare(name, passive=True, callback=done)
        assert frame.method.message_count == 0
        yield lambda done: channel.tx_commit(done)
        _, method, _, body = yield lambda done: channel.basic_get(name, done)
        assert (body, method.message_count) == (b"committed", 0)
        channel.basic_ack(method.delivery_tag)
        yield lambda done: channel.tx_commit(done)
    _Story(adapter, steps)


def publishing_from_a_thread(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        yield lambda done: channel.queue_declare(name, exclusive=True, callback=done)

        def work(done):
            channel.basic_consume(name, _collector(50, done), auto_ack=True)

            def thread():
                for number in range(50):
                    story.threadsafe(lambda number=number: channel.basic_publish("", name, str(number)))
            threading.Thread(target=thread).start()
        messages, = yield work
        assert [int(body) for _, _, body in messages] == list(range(50))
    _Story(adapter, steps)


def publishers_hear_of_alarms(adapter):
    def steps(story):
        channel = yield from _open(story)
        name = new_name()
        yield lambda done: channel.queue_declare(name, exclusive=True, callback=done)

        def alarm(done):
            story.connection.add_on_connection_blocked_callback(done)
            broker_beside("ALARM", lambda: story.threadsafe(lambda: channel.basic_publish("", name, b"late")))
        _, frame = yield alarm
        assert "low on" in frame.method.reason

        def calm(done):
            story.connection.add_on_connection_unblocked_callback(done)
            broker_beside("CALM")
        yield calm
        messages, = yield lambda done: channel.basic_consume(name, _collector(1, done), auto_ack=True)
        assert messages[0][2] == b"late"
    _Story(adapter, steps)


if __name__ == "__main__":
    main(globals(), VARIANTS)
