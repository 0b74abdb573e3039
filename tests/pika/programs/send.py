from common import connect, say

connection = connect()
channel = connection.channel()
channel.queue_declare(queue="hello", durable=True, arguments={"x-queue-type": "quorum"})
channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")
say("sent")
connection.close()
