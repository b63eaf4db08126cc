"""The rival of ingest in Python: confluent-kafka and psycopg 3, a COPY BINARY for each batch.

    consumer.py <bootstrap> <topic> <messages> <connection string>

Inserts the topic's messages into table rival; offsets are committed to Kafka after the rows, so it is at least once.
Without arguments it prints its versions.
"""
import sys

import confluent_kafka
import psycopg

BATCH_ROWS = 500
BATCH_BYTES = 16 * 1024 * 1024


def batches(consumer, messages):
    """Batches as ingest makes them: full, or what came within 50 ms."""
    left = messages
    while left > 0:
        batch, size = [], 0
        while len(batch) < BATCH_ROWS and size < BATCH_BYTES and left > 0:
            got = consumer.consume(min(BATCH_ROWS - len(batch), 50), 0.05 if batch else 1.0)
            if not got and batch:
                break
            for message in got:
                if message.error():
                    raise RuntimeError(message.error())
                batch.append(message)
                size += len(message.value())
                left -= 1
        yield batch


def main(bootstrap, topic, messages, connection_string):
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "python-" + topic + str(id(topic)), "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "fetch.message.max.bytes": BATCH_BYTES, "fetch.max.bytes": 4 * BATCH_BYTES,
        "queued.max.messages.kbytes": 4 * BATCH_BYTES // 1024})
    consumer.subscribe([topic])
    with psycopg.connect(connection_string) as connection, connection.cursor() as cursor:
        for batch in batches(consumer, int(messages)):
            with cursor.copy("COPY rival (content, source_partition, source_offset, source_key) FROM STDIN BINARY") as copy:
                copy.set_types(["bytea", "int4", "int8", "text"])
                for message in batch:
                    key = message.key()
                    copy.write_row((message.value(), message.partition(), message.offset(), key and key.decode()))
            connection.commit()
            consumer.commit(asynchronous=False)
    consumer.close()


if len(sys.argv) == 1:
    print(f"Python {sys.version.split()[0]}, confluent-kafka {confluent_kafka.__version__}, psycopg {psycopg.__version__}")
else:
    main(*sys.argv[1:])
