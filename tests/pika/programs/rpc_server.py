import pika

from common import connect, say

channel = connect().channel()
channel.queue_declare(queue="rpc_queue")


def fib(n):
    one, two = 0, 1
    for _ in range(n):
        one, two = two, one + two
    return one


def on_request(ch, method, properties, body):
    say(f"fib({body.decode()})")
    ch.basic_publish(
        exchange="",
        routing_key=properties.reply_to,
        properties=pika.BasicProperties(correlation_id=properties.correlation_id),
        body=str(fib(int(body))),
    )
    ch.basic_ack(delivery_tag=method.delivery_tag)


channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="rpc_queue", on_message_callback=on_request)
say("waiting")
channel.start_consuming()
