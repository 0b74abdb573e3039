"""Each dot of a task is work; here it lasts until the test says so by a line on standard input."""

import sys

from common import connect, say

channel = connect().channel()
channel.queue_declare(queue="task_queue", durable=True, arguments={"x-queue-type": "quorum"})


def work(ch, method, properties, body):
    task = body.decode()
    say(f"began {task} redelivered={method.redelivered}")
    for _ in range(task.count(".")):
        sys.stdin.readline()
    say(f"done {task}")
    ch.basic_ack(delivery_tag=method.delivery_tag)


channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="task_queue", on_message_callback=work)
say("waiting")
channel.start_consuming()
