"""Parts of a large room that only one invocation of the fan-out function posts to.

Lambda retries an invocation that has crashed, and may deliver any event more than once
(Lambda: "Asynchronous invocation"). So every slice has a row that is written before the first
post to it. An invocation that finds the row skips the slice.
"""

import time
from collections.abc import Callable
from typing import Any

# The row is needed while Lambda may retry: for the two minutes of MaximumEventAgeInSeconds
# (resources.json) and one invocation. DynamoDB deletes it later (TTL), free of charge.
ROW_SECONDS = 600


def begin(
    table: Any, slice_id: str, invocation_id: str, clock: Callable[[], float] = time.time
) -> bool:
    """Begin to post to a slice; returns whether no other invocation has begun.

    1 request. Raises DynamoDB's errors; then the slice may have begun.
    """
    try:
        table.put_item(
            Item={
                # Both keys spread the writes over partitions: of the table and of its index.
                "PK": f"slice_{slice_id}",
                "SK": f"begun_{slice_id}",
                "invocation": invocation_id,
                "expires_at": int(clock()) + ROW_SECONDS,
            },
            # The second condition is for boto3, which repeats a request whose answer was lost.
            ConditionExpression="attribute_not_exists(PK) OR invocation = :invocation",
            ExpressionAttributeValues={":invocation": invocation_id},
        )
    except table.meta.client.exceptions.ConditionalCheckFailedException:
        return False
    return True
