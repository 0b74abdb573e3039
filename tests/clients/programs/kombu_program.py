"""kombu's patterns, with the same arguments as Celery uses them."""

import socket
import threading

from kombu import Connection, Consumer, Exchange, Producer, Queue, pools
from kombu.mixins import ConsumerMixin, ConsumerProducerMixin
from kombu.pidbox import Mailbox
from kombu.transport import native_delayed_delivery as delayed

from common import PATIENCE_S, URL, broker, main, new_name, until


def _connect(**options):
    return Connection(URL, connect_timeout=PATIENCE_S, **options)


def _drain(connection, true, what):
    def turn():
        try:
            connection.drain_events(timeout=0.2)
        except socket.timeout:
            pass
        return true()
    until(lambda: true() or turn(), what)


def simple_queues():
    with _connect() as connection:
        queue = connection.SimpleQueue(new_name())
        for number in range(3):
            queue.put({"number": number}, serializer="json")
        for number in range(3):
            message = queue.get(timeout=PATIENCE_S)
            assert message.payload == {"number": number}
            message.ack()
        try:
            queue.get(block=False)
            raise AssertionError("it is empty")
        except queue.Empty:
            pass
        queue.close()
        queue.queue(connection.channel()).delete()
        buffer = connection.SimpleBuffer(new_name())
        buffer.put("x")
        assert buffer.get(timeout=PATIENCE_S).payload == "x"
        buffer.close()


def fanout_to_three_queues():
    with _connect() as connection:
        exchange = Exchange(new_name(), "fanout", durable=False, auto_delete=True)
        got = []
        queues = [Queue(new_name(), exchange, exclusive=True) for _ in range(3)]
        with Consumer(connection.channel(), queues, callbacks=[lambda body, message: (got.append(body), message.ack())]):
            Producer(connection.channel(), exchange).publish("news")
            _drain(connection, lambda: len(got) == 3, "a copy for each")
        assert got == ["news"] * 3


def compression_and_serializers():
    with _connect() as connection:
        queue = Queue(new_name(), exclusive=True)
        got = []
        with Consumer(connection.channel(), queue, accept=["json", "pickle", "yaml"],
                      callbacks=[lambda body, message: (got.append((body, message.headers.get("compression"))), message.ack())]):
            producer = Producer(connection.channel())
            for compression in ["gzip", "bzip2", "lzma", None]:
                for serializer in ["json", "pickle"]:
                    producer.publish(
                        {"text": "long " * 20_000}, queue.name, compression=compression, serializer=serializer)
            _drain(connection, lambda: len(got) == 8, "all messages")
        assert all(body == {"text": "long " * 20_000} for body, _ in got)
        assert got[0][1] == "application/x-gzip"


def priority_queues():
    with _connect() as connection:
        channel = connection.channel()
        queue = Queue(new_name(), exclusive=True, max_priority=9)(channel)
        queue.declare()
        producer = Producer(channel)
        for priority in [0, 3, 9, 3, None]:
            producer.publish(str(priority), queue.name, priority=priority)
        got = [queue.get(no_ack=True).payload for _ in range(5)]
        assert got == ["9", "3", "3", "0", "None"]


def queues_with_all_their_settings():
    with _connect() as connection:
        channel = connection.channel()
        dead = Queue(new_name(), exclusive=True)(channel)
        dead.declare()
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name}
        queue = Queue(
            new_name(), durable=False, expires=60.0, message_ttl=0.05, max_length=3, max_length_bytes=1000,
            queue_arguments=arguments)(channel)
        queue.declare()
        producer = Producer(channel)
        for number in range(5):
            producer.publish(number, queue.name)
        reasons = []

        def take():
            message = dead.get(no_ack=True)
            if message:
                reasons.append((message.payload, message.headers["x-death"][0]["reason"]))
            return len(reasons) == 5
        until(take, "all dead letters")
        assert sorted(reasons) == [(0, "maxlen"), (1, "maxlen"), (2, "expired"), (3, "expired"), (4, "expired")]
        queue.delete()


def quorum_queues():
    with _connect() as connection:
        channel = connection.channel()
        queue = Queue(new_name(), durable=True, queue_arguments={"x-queue-type": "quorum"})(channel)
        queue.declare()
        Producer(channel).publish("x", queue.name)

        def take():
            return queue.get(no_ack=False)
        taken = []
        until(lambda: taken.append(take()) or taken[-1], "the message")
        taken[-1].requeue()
        until(lambda: taken.append(take()) or taken[-1], "the message again")
        assert taken[-1].headers["x-delivery-count"] == 1
        taken[-1].ack()
        queue.delete()


def native_delays():
    """Celery's countdowns on quorum queues: a message climbs down a chain of exchanges and expiring queues."""
    with _connect() as connection:
        delayed.declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
        channel = connection.channel()
        exchange = Exchange(new_name(), "topic", durable=True)
        queue = Queue(new_name(), exchange, "fast.lane", durable=True, queue_arguments={"x-queue-type": "quorum"})(channel)
        queue.declare()
        delayed.bind_queue_to_native_delayed_delivery_exchange(connection, queue)
        producer = Producer(channel)
        for countdown in [3, 1]:
            key = delayed.calculate_routing_key(countdown, "fast.lane")
            producer.publish(countdown, key, exchange=delayed.level_name(27))
        got = []
        until(lambda: (message := queue.get(no_ack=True)) and got.append(message.payload) or len(got) == 2, "both")
        assert got == [1, 3]
        queue.delete()
        queue.exchange.delete()


def returned_messages():
    with _connect() as connection:
        returned = []
        producer = Producer(connection.channel(), on_return=lambda *arguments: returned.append(arguments))
        producer.publish("x", "nobody-" + new_name(), mandatory=True)
        _drain(connection, lambda: returned, "the message")


def confirms_through_a_pool():
    connection = _connect(transport_options={"confirm_publish": True})
    queue = Queue(new_name(), durable=True)
    with pools.producers[connection].acquire(block=True) as producer:
        for number in range(20):
            producer.publish(number, queue.name, declare=[queue], retry=True, delivery_mode=2)
    with connection:
        assert queue(connection.channel()).delete() == 20


def _worker(connection, queue, got):
    class Worker(ConsumerMixin):
        def __init__(self):
            self.connection = connection
            self.connect_max_retries = None

        def get_consumers(self, consumer_class, _channel):
            return [consumer_class([queue], callbacks=[self.receive])]

        def receive(self, body, message):
            got.append(body)
            message.ack()
    worker = Worker()
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return worker, thread


def a_consumer_mixin_survives_a_restart():
    queue, got = Queue(new_name(), durable=True), []
    worker, thread = _worker(_connect(), queue, got)
    producer = _connect()
    send = producer.ensure(producer, lambda body: Producer(producer.default_channel).publish(
        body, queue.name, declare=[queue], delivery_mode=2), max_retries=None, interval_start=0.1, interval_step=0.1)
    send("before")
    until(lambda: "before" in got, "the message before")
    broker("RESTART")

    def again():
        send("after")
        return "after" in got
    until(again, "the message after")
    worker.should_stop = True
    thread.join(PATIENCE_S)
    queue(producer.default_channel).delete()
    producer.release()


def a_publisher_retries():
    """Publishing over a connection that the broker has closed opens another one."""
    connection = _connect()
    queue = Queue(new_name(), durable=True)
    with pools.producers[connection].acquire(block=True) as producer:
        producer.publish(1, queue.name, declare=[queue], retry=True)
        broker("RESTART")
        producer.publish(2, queue.name, declare=[queue], retry=True, delivery_mode=2,
                         retry_policy={"max_retries": 100, "interval_start": 0.1})
    with _connect() as fresh:
        bound = queue(fresh.channel())
        until(lambda: (message := bound.get(no_ack=True)) and message.payload == 2, "the second message")
        bound.delete()


def calls_with_a_consumer_producer():
    queue = Queue(new_name(), auto_delete=True)

    class Server(ConsumerProducerMixin):
        def __init__(self):
            self.connection = _connect()

        def get_consumers(self, consumer_class, _channel):
            return [consumer_class([queue], callbacks=[self.receive], prefetch_count=1)]

        def receive(self, body, message):
            self.producer.publish(
                body * 2, message.properties["reply_to"], exchange="", correlation_id=message.properties["correlation_id"], retry=True)
            message.ack()
    server = Server()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    with _connect() as connection:
        replies = {}
        # Direct reply-to: the queue that is none.
        channel = connection.channel()
        with Consumer(channel, [Queue("amq.rabbitmq.reply-to", no_declare=True)], no_ack=True,
                      callbacks=[lambda body, message: replies.__setitem__(message.properties["correlation_id"], body)]):
            for number in range(5):
                Producer(channel).publish(
                    number, queue.name, exchange="", declare=[queue], reply_to="amq.rabbitmq.reply-to", correlation_id=str(number))
            _drain(connection, lambda: len(replies) == 5, "all replies")
        assert replies == {str(number): 2 * number for number in range(5)}
    server.should_stop = True
    thread.join(PATIENCE_S)


def pidboxes():
    """How Celery's remote control speaks: calls to all nodes or to one, and their replies."""
    mailbox = Mailbox(new_name(), type="fanout", accept=["json"])
    ready, over = [], threading.Event()

    def node(hostname):
        with _connect() as connection:
            me = mailbox.Node(hostname, state={"name": hostname}, handlers={"who": lambda state, **_: state["name"]}, channel=connection.channel())
            with me.listen():
                ready.append(hostname)
                while not over.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except socket.timeout:
                        pass
    threads = [threading.Thread(target=node, args=[f"node{number}"]) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(ready) == 3, "all nodes")
    with _connect() as connection:
        bound = mailbox(connection)
        replies = bound.multi_call("who", timeout=PATIENCE_S, limit=3)
        assert sorted(replies, key=str) == [{f"node{number}": f"node{number}"} for number in range(3)]
        assert bound.call(["node1"], "who", timeout=PATIENCE_S) == [{"node1": "node1"}]
    over.set()
    for thread in threads:
        thread.join(PATIENCE_S)


if __name__ == "__main__":
    main(globals())
