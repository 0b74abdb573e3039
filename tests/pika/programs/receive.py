from common import connect, say

channel = connect().channel()
channel.queue_declare(queue="hello", durable=True, arguments={"x-queue-type": "quorum"})
channel.basic_consume(
    queue="hello", auto_ack=True, on_message_callback=lambda ch, m, p, body: say(f"received {body.decode()}")
)
say("waiting")
channel.start_consuming()
