"""Publishing, getting, settling, confirming, transactions."""

import os
import socket

import pika
import pytest
from pika.exceptions import UnroutableError

from conftest import PATIENCE_S, URL, take, wait_for_count


def test_all_properties_and_headers_come_back(channel, name):
    channel.queue_declare(name, exclusive=True)
    properties = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={
            "text": "ä",
            "int": 7,
            "negative": -(2**40),
            "bool": True,
            "none": None,
            "list": [1, "two", {"three": 3}],
            "table": {"deep": {"deeper": 1}},
            "bytes": b"\x00\xff",
        },
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=1234567890,
        type="t",
        user_id="guest",
        app_id="a",
    )
    channel.basic_publish("", name, b"body", properties)
    method, got, body = channel.basic_get(name, auto_ack=True)
    assert (method.exchange, method.routing_key, method.redelivered, method.message_count) == ("", name, False, 0)
    assert body == b"body"
    assert vars(got) == vars(properties)


@pytest.mark.parametrize("size", [0, 1, 4096, 131_064, 131_065, 3_000_000])
def test_bodies_of_any_size(channel, name, size):
    channel.queue_declare(name, exclusive=True)
    body = os.urandom(size)
    channel.basic_publish("", name, body)
    _, _, got = next(channel.consume(name, auto_ack=True, inactivity_timeout=PATIENCE_S))
    assert got == body


def test_messages_keep_their_order(channel, name):
    channel.queue_declare(name, exclusive=True)
    for number in range(500):
        channel.basic_publish("", name, str(number))
    assert take(channel, name, 500) == [str(number) for number in range(500)]


def test_get_from_an_empty_queue(channel, name):
    channel.queue_declare(name, exclusive=True)
    assert channel.basic_get(name) == (None, None, None)


def test_declare_and_purge_count(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    for _ in range(3):
        channel.basic_publish("", name, b"x")
    declared = channel.queue_declare(name, exclusive=True).method
    assert (declared.queue, declared.message_count, declared.consumer_count) == (name, 3, 0)
    assert channel.queue_purge(name).method.message_count == 3
    assert channel.queue_delete(name).method.message_count == 0


def test_a_server_names_queues(channel):
    declared = channel.queue_declare("", exclusive=True).method.queue
    assert declared.startswith("amq.gen-")
    assert channel.queue_declare("", exclusive=True).method.queue != declared


def test_an_empty_name_is_the_queue_declared_last(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.basic_publish("", name, b"x")
    wait_for_count(channel, name, 1)
    assert channel.basic_get("", auto_ack=True)[2] == b"x"


def test_acknowledging_several_at_once(channel, name):
    channel.queue_declare(name)
    for number in range(5):
        channel.basic_publish("", name, str(number))
    wait_for_count(channel, name, 5)
    tags = [channel.basic_get(name)[0].delivery_tag for _ in range(5)]
    assert tags == [1, 2, 3, 4, 5]
    channel.basic_ack(3, multiple=True)
    channel.basic_nack(4, requeue=True)
    channel.basic_reject(5, requeue=False)
    method, _, body = channel.basic_get(name, auto_ack=True)
    assert (method.redelivered, body) == (True, b"3")
    assert channel.basic_get(name)[0] is None
    channel.queue_delete(name)


def test_what_a_closed_channel_held_goes_back_in_order(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name)
    for number in range(6):
        channel.basic_publish("", name, str(number))
    wait_for_count(channel, name, 6)
    for _ in range(4):
        channel.basic_get(name)
    channel.basic_ack(2)
    channel.close()
    channel = connection.channel()
    wait_for_count(channel, name, 5)
    got = [channel.basic_get(name, auto_ack=True) for _ in range(5)]
    assert [(body, method.redelivered) for method, _, body in got] == [
        (b"0", True),
        (b"2", True),
        (b"3", True),
        (b"4", False),
        (b"5", False),
    ]
    channel.queue_delete(name)


def test_recover_delivers_again(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.basic_publish("", name, b"x")
    wait_for_count(channel, name, 1)
    channel.basic_get(name)
    channel.basic_recover(requeue=True)
    wait_for_count(channel, name, 1)
    assert channel.basic_get(name)[0].redelivered


def test_prefetch_bounds_what_a_consumer_holds(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name, exclusive=True)
    for number in range(10):
        channel.basic_publish("", name, str(number))
    channel.basic_qos(prefetch_count=3)
    held = []
    channel.basic_consume(name, lambda ch, method, properties, body: held.append(method.delivery_tag))
    while len(held) < 3:
        connection.process_data_events(time_limit=1)
    # All that could have been sent comes before the answer to a later call.
    wait_for_count(connection.channel(), name, 7)
    connection.process_data_events(time_limit=0)
    assert held == [1, 2, 3]
    channel.basic_ack(2, multiple=True)
    while len(held) < 5:
        connection.process_data_events(time_limit=1)
    wait_for_count(connection.channel(), name, 5)
    assert held == [1, 2, 3, 4, 5]


def test_prefetch_of_a_channel_is_shared_by_its_consumers(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2, global_qos=True)
    held = []
    for queue in (name, name + "-2"):
        channel.queue_declare(queue, exclusive=True)
        for _ in range(3):
            channel.basic_publish("", queue, queue)
    for queue in (name, name + "-2"):
        wait_for_count(channel, queue, 3)
    for queue in (name, name + "-2"):
        channel.basic_consume(queue, lambda ch, method, properties, body: held.append(method.delivery_tag))
    while len(held) < 2:
        connection.process_data_events(time_limit=1)
    channel.basic_ack(held[0])
    while len(held) < 3:
        connection.process_data_events(time_limit=1)
    other = connection.channel()
    left = sum(other.queue_declare(queue, passive=True).method.message_count for queue in (name, name + "-2"))
    assert (len(held), left) == (3, 3)


def test_consumers_take_turns(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name, exclusive=True)
    got = []
    for consumer in "ab":
        channel.basic_consume(
            name, lambda ch, method, properties, body, consumer=consumer: got.append(consumer), auto_ack=True
        )
    for _ in range(10):
        channel.basic_publish("", name, b"x")
    while len(got) < 10:
        connection.process_data_events(time_limit=1)
    assert got.count("a") == got.count("b") == 5


def test_a_cancelled_consumer_gets_nothing_more(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name, exclusive=True)
    got = []
    tag = channel.basic_consume(name, lambda *call: got.append(call), auto_ack=True)
    assert tag.startswith("ctag") or tag.startswith("amq.ctag")
    channel.basic_cancel(tag)
    channel.basic_publish("", name, b"x")
    wait_for_count(channel, name, 1)
    assert got == []


def test_consumers_hear_that_their_queue_has_gone(connect, name):
    connection, other = connect(), connect()
    channel = connection.channel()
    channel.queue_declare(name)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(name, print)
    other.channel().queue_delete(name)
    while not cancelled:
        connection.process_data_events(time_limit=1)
    assert cancelled == [tag]


def test_an_auto_delete_queue_goes_with_its_last_consumer(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name, auto_delete=True)
    tags = [channel.basic_consume(name, print) for _ in range(2)]
    channel.basic_cancel(tags[0])
    channel.queue_declare(name, passive=True)
    channel.basic_cancel(tags[1])
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        for _ in range(PATIENCE_S * 100):
            channel.queue_declare(name, passive=True)
            connection.sleep(0.01)
    assert caught.value.reply_code == 404


def test_every_publish_is_confirmed(channel, name):
    channel.queue_declare(name, durable=True)
    channel.confirm_delivery()
    for number in range(50):
        mode = 1 + number % 2
        channel.basic_publish("", name, str(number), pika.BasicProperties(delivery_mode=mode))
    assert take(channel, name, 50) == [str(number) for number in range(50)]
    channel.queue_delete(name)


def test_a_mandatory_message_that_nobody_gets_comes_back(channel, name):
    channel.confirm_delivery()
    with pytest.raises(UnroutableError) as caught:
        channel.basic_publish("amq.direct", name, b"lost", mandatory=True)
    returned = caught.value.messages[0]
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key) == ("amq.direct", name)
    assert returned.body == b"lost"
    # Without `mandatory` it is confirmed and dropped.
    channel.basic_publish("amq.direct", name, b"lost")


def test_a_transaction_shows_at_its_commit(connect, name):
    connection = connect()
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare(name, durable=True)
    channel.tx_select()
    channel.basic_publish("", name, b"one", pika.BasicProperties(delivery_mode=2))
    channel.basic_publish("", name, b"two")
    assert other.queue_declare(name, passive=True).method.message_count == 0
    channel.tx_commit()
    wait_for_count(other, name, 2)
    channel.basic_publish("", name, b"three")
    channel.tx_rollback()
    channel.tx_commit()
    assert other.queue_declare(name, passive=True).method.message_count == 2
    other.queue_delete(name)


def test_acknowledgements_of_a_transaction_can_be_rolled_back(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name)
    channel.basic_publish("", name, b"x")
    wait_for_count(channel, name, 1)
    channel.tx_select()
    method, _, _ = channel.basic_get(name)
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()
    channel.close()
    channel = connection.channel()
    wait_for_count(channel, name, 1)
    channel.tx_select()
    method, _, _ = channel.basic_get(name)
    channel.basic_ack(method.delivery_tag)
    channel.tx_commit()
    channel.close()
    channel = connection.channel()
    assert channel.queue_declare(name, passive=True).method.message_count == 0
    channel.queue_delete(name)


def test_messages_expire(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"short", pika.BasicProperties(expiration="20"))
    channel.basic_publish("", name, b"long")
    wait_for_count(channel, name, 1)
    assert channel.basic_get(name, auto_ack=True)[2] == b"long"


def test_a_wrong_expiration_is_refused(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.basic_publish("", name, b"x", pika.BasicProperties(expiration="soon"))
    assert caught.value.reply_code == 406
    assert caught.value.reply_text.startswith("PRECONDITION_FAILED - invalid expiration 'soon'")


def test_a_connection_that_dies_gives_everything_back(connect, name):
    doomed, other = connect(), connect()
    channel = doomed.channel()
    channel.queue_declare(name)
    channel.basic_publish("", name, b"x")
    wait_for_count(channel, name, 1)
    channel.basic_get(name)
    abort(doomed)
    wait_for_count(other.channel(), name, 1)
    method, _, _ = other.channel().basic_get(name, auto_ack=True)
    assert method.redelivered
    other.channel().queue_delete(name)


def abort(connection):
    """Ends the TCP connection without a word of AMQP."""
    sock = connection._impl._transport._sock
    sock.shutdown(socket.SHUT_RDWR)


def test_amqplain_is_understood():
    parameters = pika.URLParameters(URL)

    class AmqPlain(pika.PlainCredentials):
        TYPE = "AMQPLAIN"

        def response_for(self, start):
            table = b""
            for key, value in ((b"LOGIN", b"guest"), (b"PASSWORD", b"guest")):
                table += bytes([len(key)]) + key + b"S" + len(value).to_bytes(4, "big") + value
            return "AMQPLAIN", table

    parameters.credentials = AmqPlain("guest", "guest")
    pika.credentials.VALID_TYPES.append(AmqPlain)
    try:
        connection = pika.BlockingConnection(parameters)
        connection.channel().queue_declare("", exclusive=True)
        connection.close()
    finally:
        pika.credentials.VALID_TYPES.remove(AmqPlain)
