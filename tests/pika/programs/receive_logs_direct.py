import sys

from common import connect, say, usage

channel = connect().channel()
channel.exchange_declare(exchange="direct_logs", exchange_type="direct")
queue = channel.queue_declare(queue="", exclusive=True).method.queue
if len(sys.argv) < 2:
    usage("[info] [warning] [error]")
for severity in sys.argv[1:]:
    channel.queue_bind(exchange="direct_logs", queue=queue, routing_key=severity)
channel.basic_consume(
    queue=queue,
    auto_ack=True,
    on_message_callback=lambda ch, m, p, body: say(f"received {m.routing_key}:{body.decode()}"),
)
say("waiting")
channel.start_consuming()
