import sys

from common import connect, say

connection = connect()
channel = connection.channel()
channel.exchange_declare(exchange="topic_logs", exchange_type="topic")
key = sys.argv[1] if len(sys.argv) > 1 else "anonymous.info"
message = " ".join(sys.argv[2:]) or "Hello World!"
channel.basic_publish(exchange="topic_logs", routing_key=key, body=message)
say(f"sent {key}:{message}")
connection.close()
