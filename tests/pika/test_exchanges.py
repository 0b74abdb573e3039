"""Where messages go."""

import pytest
from pika.exceptions import ChannelClosedByBroker, UnroutableError
import pika

from conftest import take, wait_for_count


@pytest.fixture
def queues(channel, name):
    names = [f"{name}-{number}" for number in range(3)]
    for queue in names:
        channel.queue_declare(queue, exclusive=True)
    channel.confirm_delivery()
    return names


def counts(channel, queues):
    return [channel.queue_declare(queue, passive=True).method.message_count for queue in queues]


def test_the_default_exchange_is_the_names_of_queues(channel, queues):
    channel.basic_publish("", queues[1], b"x")
    assert counts(channel, queues) == [0, 1, 0]


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.topic"])
def test_a_binding_made_twice_is_one(channel, queues, name, exchange):
    for _ in range(2):
        channel.queue_bind(queues[0], exchange, name)
    channel.queue_bind(queues[1], exchange, name)
    channel.basic_publish(exchange, name, b"x")
    assert counts(channel, queues) == [1, 1, 0]
    channel.queue_unbind(queues[0], exchange, name)
    channel.basic_publish(exchange, name, b"x")
    assert counts(channel, queues) == [1, 2, 0]
    # To take a binding away that is not there is no error.
    channel.queue_unbind(queues[0], exchange, name)


def test_fanout_ignores_the_key_and_counts_a_queue_once(channel, queues, name):
    channel.exchange_declare(name, "fanout", auto_delete=True)
    channel.queue_bind(queues[0], name, "one")
    channel.queue_bind(queues[0], name, "two")
    channel.queue_bind(queues[1], name)
    channel.basic_publish(name, "three", b"x")
    assert counts(channel, queues) == [1, 1, 0]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("#", ["", "a", "a.b.c"], []),
        ("*", ["a"], ["", "a.b"]),
        ("a.*.c", ["a.b.c", "a..c"], ["a.c", "a.b.b.c"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["b", "", "ab"]),
        ("#.c", ["c", "a.c", "a.b.c"], ["a.c.b"]),
        ("a.#.z", ["a.z", "a.b.z", "a.b.c.z"], ["a", "z", "a.b"]),
        ("#.#", ["", "a", "a.b"], []),
        ("*.#", ["a", "a.b"], [""]),
        ("a.b", ["a.b"], ["a.b.c", "a", "a.B"]),
        ("", [""], ["a"]),
    ],
)
def test_topic_patterns(channel, queues, name, pattern, matching, others):
    channel.exchange_declare(name, "topic", auto_delete=True)
    channel.queue_bind(queues[0], name, pattern)
    for key in matching:
        channel.basic_publish(name, key, key)
    for key in others:
        channel.basic_publish(name, key, key)
    assert counts(channel, queues)[0] == len(matching)


def test_headers_all_any_and_presence(channel, queues, name):
    channel.exchange_declare(name, "headers", auto_delete=True)
    wanted = {"format": "pdf", "pages": 10}
    channel.queue_bind(queues[0], name, arguments={"x-match": "all", **wanted})
    channel.queue_bind(queues[1], name, arguments={"x-match": "any", **wanted})
    channel.queue_bind(queues[2], name, arguments={"format": None})

    def publish(headers):
        channel.basic_publish(name, "", b"x", pika.BasicProperties(headers=headers))
        result = counts(channel, queues)
        for queue in queues:
            channel.queue_purge(queue)
        return result

    assert publish({"format": "pdf", "pages": 10, "more": 1}) == [1, 1, 1]
    assert publish({"format": "pdf"}) == [0, 1, 1]
    assert publish({"format": "zip", "pages": 11}) == [0, 0, 1]
    assert publish({}) == [0, 0, 0]


def test_a_wrong_x_match_is_refused(channel, queues, name):
    channel.exchange_declare(name, "headers", auto_delete=True)
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.queue_bind(queues[0], name, arguments={"x-match": "most"})
    assert caught.value.reply_code == 406
    assert "Invalid x-match field value" in caught.value.reply_text


def test_exchanges_bind_to_exchanges_and_circles_end(channel, queues, name):
    one, two = name + "-one", name + "-two"
    channel.exchange_declare(one, "direct")
    channel.exchange_declare(two, "fanout")
    channel.exchange_bind(two, one, "key")
    channel.exchange_bind(one, two, "back")
    channel.queue_bind(queues[0], two)
    channel.queue_bind(queues[0], one, "key")
    channel.basic_publish(one, "key", b"x")
    assert counts(channel, queues) == [1, 0, 0]
    channel.exchange_unbind(two, one, "key")
    channel.queue_unbind(queues[0], one, "key")
    channel.basic_publish(one, "key", b"x")
    assert counts(channel, queues) == [1, 0, 0]
    channel.exchange_delete(one)
    channel.exchange_delete(two)


def test_an_auto_delete_exchange_goes_with_its_last_binding(channel, queues, name):
    channel.exchange_declare(name, "direct", auto_delete=True)
    channel.queue_bind(queues[0], name, "a")
    channel.queue_bind(queues[0], name, "b")
    channel.queue_unbind(queues[0], name, "a")
    channel.exchange_declare(name, passive=True)
    channel.queue_delete(queues[0])
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.exchange_declare(name, passive=True)
    assert caught.value.reply_code == 404


def test_deleting_an_exchange_deletes_its_bindings(channel, queues, name):
    channel.exchange_declare(name, "fanout")
    channel.queue_bind(queues[0], name)
    channel.exchange_delete(name)
    channel.exchange_declare(name, "fanout")
    channel.basic_publish(name, "", b"x")
    assert counts(channel, queues) == [0, 0, 0]
    channel.exchange_delete(name)


def test_an_alternate_exchange_takes_what_nobody_wants(channel, queues, name):
    rest = name + "-rest"
    channel.exchange_declare(rest, "fanout")
    channel.exchange_declare(name, "direct", arguments={"alternate-exchange": rest})
    channel.queue_bind(queues[0], name, "known")
    channel.basic_publish(name, "known", b"x")
    with pytest.raises(UnroutableError):
        channel.basic_publish(name, "unknown", b"x", mandatory=True)
    channel.queue_bind(queues[1], rest)
    channel.basic_publish(name, "unknown", b"x", mandatory=True)
    assert counts(channel, queues) == [1, 1, 0]
    channel.exchange_delete(name)
    channel.exchange_delete(rest)


def test_one_message_in_many_queues_is_settled_in_each(channel, queues, name):
    channel.exchange_declare(name, "fanout", auto_delete=True)
    for queue in queues:
        channel.queue_bind(queue, name)
    channel.basic_publish(name, "", b"x")
    assert take(channel, queues[0], 1) == ["x"]
    for queue in queues[1:]:
        wait_for_count(channel, queue, 1)
