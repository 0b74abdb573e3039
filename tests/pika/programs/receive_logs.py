from common import connect, say

channel = connect().channel()
channel.exchange_declare(exchange="logs", exchange_type="fanout")
queue = channel.queue_declare(queue="", exclusive=True).method.queue
channel.queue_bind(exchange="logs", queue=queue)
channel.basic_consume(
    queue=queue, auto_ack=True, on_message_callback=lambda ch, m, p, body: say(f"received {body.decode()}")
)
say("waiting")
channel.start_consuming()
