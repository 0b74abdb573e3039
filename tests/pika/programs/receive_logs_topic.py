import sys

from common import connect, say, usage

channel = connect().channel()
channel.exchange_declare(exchange="topic_logs", exchange_type="topic")
queue = channel.queue_declare(queue="", exclusive=True).method.queue
if len(sys.argv) < 2:
    usage("BINDING_KEY...")
for key in sys.argv[1:]:
    channel.queue_bind(exchange="topic_logs", queue=queue, routing_key=key)
channel.basic_consume(
    queue=queue,
    auto_ack=True,
    on_message_callback=lambda ch, m, p, body: say(f"received {m.routing_key}:{body.decode()}"),
)
say("waiting")
channel.start_consuming()
