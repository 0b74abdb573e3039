"""What a client does wrong, and what it is told: codes and texts."""

import pika
import pytest
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)


def closed(call, *arguments, **keywords):
    with pytest.raises((ChannelClosedByBroker, ConnectionClosedByBroker)) as caught:
        call(*arguments, **keywords)
    return caught.value.reply_code, caught.value.reply_text


def test_missing_things_are_404(connect, name):
    connection = connect()
    code, text = closed(connection.channel().queue_declare, name, passive=True)
    assert (code, text) == (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
    code, text = closed(connection.channel().exchange_declare, name, passive=True)
    assert (code, text) == (404, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
    code, text = closed(connection.channel().basic_consume, name, print)
    assert (code, text) == (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
    code, text = closed(connection.channel().queue_purge, name)
    assert (code, text) == (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")


def test_publishing_to_a_missing_exchange_is_404(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    code, text = closed(channel.basic_publish, name, "key", b"body")
    assert (code, text) == (404, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
    # The connection and its other channels live on.
    connection.channel().queue_delete(name)


def test_deleting_what_is_not_there_succeeds(channel, name):
    channel.queue_delete(name)
    channel.exchange_delete(name)


def test_a_queue_redeclared_otherwise_is_406(connect, name):
    connection = connect()
    connection.channel().queue_declare(name, durable=True)
    code, text = closed(connection.channel().queue_declare, name)
    assert code == 406
    assert text == (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{name}' in vhost '/': "
        "received 'false' but current is 'true'"
    )
    code, text = closed(connection.channel().queue_declare, name, durable=True, auto_delete=True)
    assert text == (
        f"PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '{name}' in vhost '/': "
        "received 'true' but current is 'false'"
    )
    quorum = {"x-queue-type": "quorum"}
    code, text = closed(connection.channel().queue_declare, name, durable=True, arguments=quorum)
    assert text == (
        f"PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue '{name}' in vhost '/': "
        "received the value 'quorum' of type 'longstr' but current is none"
    )
    connection.channel().queue_declare(name, durable=True)
    connection.channel().queue_delete(name)


def test_an_exchange_redeclared_otherwise_is_406(connect, name):
    connection = connect()
    connection.channel().exchange_declare(name, "direct")
    code, text = closed(connection.channel().exchange_declare, name, "fanout")
    assert (code, text) == (
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}' in vhost '/': "
        "received 'fanout' but current is 'direct'",
    )
    code, text = closed(connection.channel().exchange_declare, name, "direct", durable=True)
    assert text == (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '{name}' in vhost '/': "
        "received 'true' but current is 'false'"
    )
    connection.channel().exchange_delete(name)


def test_unknown_delivery_tags_are_406(connect):
    connection = connect()
    for method in ("basic_ack", "basic_nack", "basic_reject"):
        channel = connection.channel()
        getattr(channel, method)(17)
        code, text = closed(channel.basic_get, "amq.nothing")
        assert (code, text) == (406, "PRECONDITION_FAILED - unknown delivery tag 17")


def test_a_tag_acknowledged_twice_is_406(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.basic_publish("", name, b"once")
    method, _, _ = channel.basic_get(name)
    channel.basic_ack(method.delivery_tag)
    channel.basic_ack(method.delivery_tag)
    code, text = closed(channel.basic_get, name)
    assert (code, text) == (406, "PRECONDITION_FAILED - unknown delivery tag 1")


def test_an_exclusive_queue_is_its_owners(connect, name):
    owner, other = connect(), connect()
    owner.channel().queue_declare(name, exclusive=True)
    expected = (
        405,
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be "
        "originally declared on another connection or the exclusive property value does not match that of the "
        "original declaration.",
    )
    assert closed(other.channel().queue_declare, name, passive=True) == expected
    assert closed(other.channel().queue_declare, name, exclusive=True) == expected
    assert closed(other.channel().queue_delete, name) == expected
    assert closed(other.channel().basic_consume, name, print) == expected
    assert closed(owner.channel().queue_declare, name) == expected
    owner.close()
    # It went with its owner.
    code, _ = closed(other.channel().queue_declare, name, passive=True)
    assert code == 404


def test_reserved_names_are_403(connect):
    connection = connect()
    code, text = closed(connection.channel().queue_declare, "amq.mine")
    assert (code, text) == (403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'")
    own = connection.channel().queue_declare("", exclusive=True).method.queue
    connection.channel().queue_declare(own, passive=True)
    code, text = closed(connection.channel().queue_declare, own, exclusive=True)
    assert (code, text) == (403, f"ACCESS_REFUSED - queue name '{own}' contains reserved prefix 'amq.*'")
    code, text = closed(connection.channel().exchange_declare, "amq.mine", "direct")
    assert (code, text) == (403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'")
    code, text = closed(connection.channel().exchange_delete, "amq.direct")
    assert code == 403
    connection.channel().exchange_declare("amq.direct", passive=True)


def test_the_default_exchange_is_nobodys_to_change(connect, name):
    connection = connect()
    connection.channel().queue_declare(name)
    expected = (403, "ACCESS_REFUSED - operation not permitted on the default exchange")
    assert closed(connection.channel().queue_bind, name, "", "key") == expected
    assert closed(connection.channel().queue_unbind, name, "", "key") == expected
    assert closed(connection.channel().exchange_delete, "") == expected
    connection.channel().queue_delete(name)


def test_an_unknown_exchange_type_closes_the_connection(connect, name):
    connection = connect()
    code, text = closed(connection.channel().exchange_declare, name, "strange")
    assert (code, text) == (503, "COMMAND_INVALID - unknown exchange type 'strange'")
    assert connection.is_closed


def test_a_consumer_tag_used_twice_closes_the_connection(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name, exclusive=True)
    channel.basic_consume(name, print, consumer_tag="tag")
    # pika itself refuses to use a tag twice: forget the first.
    channel._consumer_infos.clear()
    channel._impl._consumers.clear()
    code, text = closed(channel.basic_consume, name, print, consumer_tag="tag")
    assert (code, text) == (530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'")


def test_an_exclusive_consumer_stays_alone(connect, name):
    connection = connect()
    first = connection.channel()
    first.queue_declare(name, exclusive=True)
    first.basic_consume(name, print, exclusive=True)
    expected = (403, f"ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use")
    assert closed(connection.channel().basic_consume, name, print) == expected


def test_conditions_of_deleting_are_kept(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"x")
    code, text = closed(connection.channel().queue_delete, name, if_empty=True)
    assert (code, text) == (406, f"PRECONDITION_FAILED - queue '{name}' in vhost '/' not empty")
    channel.basic_consume(name, print)
    code, text = closed(connection.channel().queue_delete, name, if_unused=True)
    assert (code, text) == (406, f"PRECONDITION_FAILED - queue '{name}' in vhost '/' in use")
    channel.exchange_declare(name, "fanout")
    channel.queue_bind(name, name)
    code, text = closed(connection.channel().exchange_delete, name, if_unused=True)
    assert (code, text) == (406, f"PRECONDITION_FAILED - exchange '{name}' in vhost '/' in use")
    connection.channel().queue_delete(name)
    connection.channel().exchange_delete(name, if_unused=True)


def test_what_is_not_implemented_says_so(connect, name):
    code, text = closed(connect().channel().basic_qos, prefetch_size=10)
    assert (code, text) == (540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)")
    code, text = closed(connect().channel().basic_recover, requeue=False)
    assert (code, text) == (540, "NOT_IMPLEMENTED - requeue=false")


def test_a_false_user_id_is_406(channel, name):
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    properties = pika.BasicProperties(user_id="somebody")
    code, text = closed(channel.basic_publish, "", name, b"x", properties)
    assert (code, text) == (
        406,
        "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
    )


def test_confirms_and_transactions_do_not_mix(connect):
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    code, text = closed(channel.tx_select)
    assert (code, text) == (406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode")
    channel = connection.channel()
    channel.tx_select()
    code, text = closed(channel.confirm_delivery)
    assert (code, text) == (406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")
    code, text = closed(connection.channel().tx_commit)
    assert (code, text) == (406, "PRECONDITION_FAILED - channel is not transactional")


def test_an_internal_exchange_takes_no_publishes(channel, name):
    channel.exchange_declare(name, "fanout", internal=True, auto_delete=True)
    channel.confirm_delivery()
    code, text = closed(channel.basic_publish, name, "", b"x")
    assert (code, text) == (
        403,
        f"ACCESS_REFUSED - cannot publish to internal exchange '{name}' in vhost '/'",
    )


def test_a_quorum_queue_must_be_durable_and_shared(connect, name):
    quorum = {"x-queue-type": "quorum"}
    code, text = closed(connect().channel().queue_declare, name, arguments=quorum)
    assert (code, text) == (
        406,
        f"PRECONDITION_FAILED - invalid property 'non-durable' for queue '{name}' in vhost '/'",
    )


def test_wrong_credentials_are_refused(connect):
    credentials = pika.PlainCredentials("guest", "wrong")
    with pytest.raises((ProbableAuthenticationError, ConnectionClosedByBroker)) as caught:
        connect(credentials=credentials)
    assert "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" in str(caught.value)


def test_an_unknown_virtual_host_is_refused(connect):
    with pytest.raises((ProbableAccessDeniedError, ConnectionClosedByBroker)) as caught:
        connect(virtual_host="nowhere")
    assert "(530)" in str(caught.value) and "NOT_ALLOWED - vhost nowhere not found" in str(caught.value)
