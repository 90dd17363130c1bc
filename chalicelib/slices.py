"""Parts of a large room that only one invocation of the fan-out function posts to.

Lambda retries an invocation that has crashed, and may deliver any event more than once
(Lambda: "Asynchronous invocation"). So an invocation writes a row for each slice before its first
post to it, and skips a slice whose row it finds.
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
    """Begin to post to a slice; returns False if another invocation has begun it.

    1 request. Raises DynamoDB's errors; then the slice may count as begun.
    """
    try:
        table.put_item(
            Item={
                # The id in both keys spreads the writes over partitions of the table and its index.
                "PK": f"slice_{slice_id}",
                "SK": f"begun_{slice_id}",
                "invocation": invocation_id,
                "expires_at": int(clock()) + ROW_SECONDS,
            },
            # A request whose answer was lost is repeated; the second condition lets it pass.
            ConditionExpression="attribute_not_exists(PK) OR invocation = :invocation",
            ExpressionAttributeValues={":invocation": invocation_id},
        )
    except table.meta.client.exceptions.ConditionalCheckFailedException:
        return False
    return True
