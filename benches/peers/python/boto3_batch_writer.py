"""boto3's `batch_writer`, as its documentation shows it.

It collects 25 items and sends them, one call at a time, and retries unprocessed items itself. Session,
connections and retries are boto3's defaults. The items are dicts of plain values, which are built and
serialised within the measured time.
"""

import json
import platform
import resource
import sys
import time

import boto3
import botocore

BATCH_EVENTS = 25

url, path, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path, encoding="utf-8") as file:
    bodies = file.read().rstrip("\n").split("\n")

table = boto3.resource("dynamodb", region_name="us-east-1", endpoint_url=url).Table("events")
calls = 0


def check(parsed, **_):
    """Fails on unprocessed items, which the writer would retry in an unnoticed further call."""
    global calls
    calls += 1
    if parsed["UnprocessedItems"]:
        sys.exit(f"unprocessed: {parsed}")


table.meta.client.meta.events.register("after-call.dynamodb.BatchWriteItem", check)


def write(first, events):
    with table.batch_writer() as batch:
        for number in range(first, first + events):
            body = bodies[number % len(bodies)]
            batch.put_item(Item={"key": f"20130927T005240652{number:09}", "body": body})


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# Opens the connection.
warm_up = events // 2
write(0, warm_up)
calls = 0
cpu, wall = cpu_seconds(), time.perf_counter()
write(warm_up, events)
wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
assert calls == -(-events // BATCH_EVENTS), f"{calls} calls for {events} events"
versions = {
    "python": platform.python_version(),
    "boto3": boto3.__version__,
    "botocore": botocore.__version__,
}
line = {"events": events, "wall_seconds": wall, "cpu_seconds": cpu, "versions": versions}
print(json.dumps(line))
