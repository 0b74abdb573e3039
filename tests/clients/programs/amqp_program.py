"""py-amqp, the transport of kombu and Celery."""

import amqp

from common import PATIENCE_S, URL, broker, main, new_name, until

HOST = URL.removeprefix("amqp://").rsplit("@")[-1].rstrip("/")


def _connect(**options):
    connection = amqp.Connection(HOST, connect_timeout=PATIENCE_S, read_timeout=PATIENCE_S, **options)
    connection.connect()
    return connection


def _drain(connection, true, what):
    until(lambda: true() or connection.drain_events(timeout=PATIENCE_S) or true(), what)


def consuming_what_was_published():
    with _connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare(exclusive=True, auto_delete=False).queue
        channel.basic_qos(0, 7, False)
        got = []

        def receive(message):
            got.append((message.body, message.content_type, message.headers["n"]))
            channel.basic_ack(message.delivery_tag)
        tag = channel.basic_consume(name, callback=receive)
        headers = {"n": None, "list": [1, "two", {"three": 3.5}], "large": 2**40, "negative": -5, "true": True}
        for number in range(50):
            headers["n"] = number
            channel.basic_publish(
                amqp.Message(f"body {number}", content_type="text/plain", application_headers=dict(headers)), "", name)
        _drain(connection, lambda: len(got) == 50, "all messages")
        assert got == [(f"body {number}", "text/plain", number) for number in range(50)]
        channel.basic_cancel(tag)
        assert channel.basic_get(name) is None


def publishing_waits_for_the_confirm():
    with _connect(confirm_publish=True) as connection:
        channel = connection.channel()
        name = channel.queue_declare(durable=True, auto_delete=False, queue=new_name()).queue
        for number in range(20):
            channel.basic_publish_confirm(amqp.Message(str(number), delivery_mode=2), "", name)
        assert channel.queue_delete(name) == 20


def returned_messages():
    with _connect() as connection:
        channel = connection.channel()
        returned = []
        channel.events["basic_return"].add(lambda *arguments: returned.append(arguments))
        channel.basic_publish(amqp.Message("x"), "", "nobody-" + new_name(), mandatory=True)
        _drain(connection, lambda: returned, "the message")
        error, exchange, _, message = returned[0]
        assert (error.reply_code, error.reply_text, exchange, message.body) == (312, "NO_ROUTE", "", "x")


def errors_by_their_classes():
    with _connect() as connection:
        for error, fail in [
            (amqp.NotFound, lambda channel: channel.queue_declare("nobody-" + new_name(), passive=True)),
            (amqp.AccessRefused, lambda channel: channel.queue_declare("amq.mine")),
            (amqp.PreconditionFailed, lambda channel: channel.exchange_declare("amq.direct", "fanout", durable=True, auto_delete=False)),
        ]:
            channel = connection.channel()
            try:
                fail(channel)
            except error:
                continue
            raise AssertionError(f"{error} was expected")
        with _connect() as other:
            name = connection.channel().queue_declare(new_name(), exclusive=True).queue
            try:
                other.channel().queue_declare(name)
            except amqp.ResourceLocked:
                return
            raise AssertionError("the queue is another connection's")


def a_wrong_password_is_told():
    try:
        _connect(userid="guest", password="wrong")
    except amqp.AccessRefused as error:
        assert "Login was refused" in str(error)
        return
    raise AssertionError("the password is wrong")


def the_other_mechanism():
    connection = amqp.Connection(HOST, login_method="AMQPLAIN", userid="guest", password="guest", connect_timeout=PATIENCE_S)
    connection.connect()
    connection.channel().queue_declare(exclusive=True)
    connection.close()


def transactions_and_recovery():
    with _connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare(exclusive=True).queue
        channel.tx_select()
        channel.basic_publish(amqp.Message("no"), "", name)
        channel.tx_rollback()
        channel.basic_publish(amqp.Message("yes"), "", name)
        channel.tx_commit()
        channel = connection.channel()
        assert channel.basic_get(name).body == "yes"
        channel.basic_recover(requeue=True)
        message = channel.basic_get(name, no_ack=True)
        assert (message.body, message.delivery_info["redelivered"]) == ("yes", True)


def exchanges_bound_to_exchanges():
    with _connect() as connection:
        channel = connection.channel()
        source, target = new_name(), new_name()
        channel.exchange_declare(source, "topic", auto_delete=True)
        channel.exchange_declare(target, "fanout", auto_delete=True)
        name = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(name, target)
        channel.exchange_bind(target, source, "a.*")
        channel.basic_publish(amqp.Message("x"), source, "a.b")
        channel.basic_publish(amqp.Message("x"), source, "b.a")
        until(lambda: channel.queue_declare(name, passive=True).message_count == 1, "one of the two")
        channel.exchange_unbind(target, source, "a.*")
        assert channel.queue_purge(name) == 1


def a_consumer_is_told_when_its_queue_is_deleted():
    with _connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare(new_name()).queue
        cancelled = []
        channel.basic_consume(name, consumer_tag="reader", callback=print, on_cancel=cancelled.append)
        connection.channel().queue_delete(name)
        _drain(connection, lambda: cancelled, "the word")
        assert cancelled == ["reader"]


def heartbeats_keep_a_connection():
    with _connect(heartbeat=2) as connection:
        channel = connection.channel()
        before = connection.bytes_recv

        # Frames, in spite of the name. Each is a heartbeat: four take longer than a silent client is borne.
        def four_more():
            connection.heartbeat_tick()
            _hear(connection)
            return before + 4 <= connection.bytes_recv
        until(four_more, "heartbeats")
        channel.queue_declare(exclusive=True)


def _hear(connection):
    # A longer wait would begin anew with each heartbeat, and nothing would be sent meanwhile.
    try:
        connection.drain_events(timeout=0.1)
    except TimeoutError:
        pass


def publishers_hear_of_alarms():
    said = []
    connection = _connect(on_blocked=said.append, on_unblocked=lambda: said.append("over"))
    channel = connection.channel()
    name = channel.queue_declare(exclusive=True).queue
    broker("ALARM")
    channel.basic_publish(amqp.Message("late"), "", name)
    _drain(connection, lambda: said, "blocked")
    # py-amqp does not read the reason.
    broker("CALM")
    _drain(connection, lambda: len(said) == 2, "unblocked")
    assert said[1] == "over"
    connection.close()


if __name__ == "__main__":
    main(globals())
