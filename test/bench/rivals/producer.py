"""Sends a file to a topic at a steady rate: producer.py <bootstrap> <topic> <file> <messages> <messages per second>"""
import sys
import time

import confluent_kafka

bootstrap, topic, file, messages, rate = sys.argv[1:]
with open(file, "rb") as source:
    value = source.read()
# As whoever minds latency sends: without Nagle's algorithm, which waits for acknowledgements before it sends the rest.
producer = confluent_kafka.Producer(
    {"bootstrap.servers": bootstrap, "linger.ms": 0, "acks": "all", "socket.nagle.disable": True})
began = time.monotonic()
for number in range(int(messages)):
    # A poll ends with each report of a delivery.
    while (wait := began + number / float(rate) - time.monotonic()) > 0:
        producer.poll(wait)
    producer.produce(topic, value, key=str(number), partition=number % 4)
producer.flush()
