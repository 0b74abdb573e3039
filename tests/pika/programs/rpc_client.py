import sys
import uuid

import pika

from common import connect, say

connection = connect()
channel = connection.channel()
callback_queue = channel.queue_declare(queue="", exclusive=True).method.queue
answers = {}
channel.basic_consume(
    queue=callback_queue,
    auto_ack=True,
    on_message_callback=lambda ch, m, p, body: answers.__setitem__(p.correlation_id, body),
)
for number in sys.argv[1:] or ["30"]:
    correlation_id = str(uuid.uuid4())
    channel.basic_publish(
        exchange="",
        routing_key="rpc_queue",
        properties=pika.BasicProperties(reply_to=callback_queue, correlation_id=correlation_id),
        body=number,
    )
    while correlation_id not in answers:
        connection.process_data_events(time_limit=1)
    say(f"got {answers[correlation_id].decode()}")
connection.close()
