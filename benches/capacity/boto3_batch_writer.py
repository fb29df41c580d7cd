"""boto3's `batch_writer` for a number of seconds, in several threads with a writer each.

The writer retries unprocessed items itself, and botocore retries throttled calls. All settings are
defaults, except that a call that failed after its retries is repeated.
"""

import json
import resource
import sys
import threading
import time

import boto3
import botocore.exceptions

url, seconds, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
body = '"' + "x" * 198 + '"'
end = time.monotonic() + seconds


class Over(Exception):
    """The time is up."""


def write(thread):
    session = boto3.session.Session()
    table = session.resource("dynamodb", region_name="us-east-1", endpoint_url=url).Table("events")
    number = 0

    def check(**_):
        if time.monotonic() >= end:
            raise Over

    table.meta.client.meta.events.register("before-send.dynamodb.BatchWriteItem", check)
    while True:
        try:
            with table.batch_writer() as batch:
                while True:
                    number += 1
                    key = f"20130927T005240652{thread:02}{number:07}"
                    batch.put_item(Item={"key": key, "body": body})
        except botocore.exceptions.ClientError:
            continue
        except Over:
            return


workers = [threading.Thread(target=write, args=(thread,), daemon=True) for thread in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join(max(0.0, end - time.monotonic()) + 1)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu_seconds": usage.ru_utime + usage.ru_stime}), flush=True)
