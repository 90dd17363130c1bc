"""The directory of the rooms: which are open, and how many members each has.

A count changes by a plain `ADD`, outside the transactions that move people: inside, they would
conflict on a popular room's row. It is raised before somebody enters and lowered after somebody has
left, so a crash in between leaves it too high, never too low: an empty room may be listed until its
row expires, but an occupied room is never hidden.

For the same reason, boto3 must not repeat a request that lowers a count, unless an answer proves
that the request has changed nothing. It may repeat a request that raises a count.
"""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.invocation import log
from chalicelib.storage.rows import LIFETIME_SECONDS, directory_key

LOWER = "ADD members :less"


class Rooms:
    """Counts the members of the rooms. Costs are in requests to DynamoDB."""

    def __init__(self, table: Any, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self._refused = table.meta.client.exceptions.ConditionalCheckFailedException
        table.meta.client.meta.events.register_first(
            "needs-retry.dynamodb.UpdateItem", _lower_once, unique_id="lower-once"
        )

    def count_in(self, room: str) -> None:
        """Add a member, from 0 if the row has expired. 1 request, and up to 2 more in that case."""
        now = int(self._clock())
        values = {":one": 1, ":now": now, ":then": now + LIFETIME_SECONDS}
        add = (
            "ADD members :one SET expires_at = :then",
            "attribute_not_exists(PK) OR expires_at > :now",
        )
        reset = ("SET members = :one, expires_at = :then", "expires_at <= :now")
        for update, condition in (add, reset, add):
            try:
                self._table.update_item(
                    Key=directory_key(room),
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                )
                return
            except self._refused:
                continue
        raise RuntimeError("The directory's row expired while it was being renewed.")

    def count_out(self, room: str, members: int = 1) -> None:
        """Subtract members, and close the room if it is empty. 1 request; 1 more to close.
        Failures are logged, not raised: the members have left."""
        try:
            response = self._table.update_item(
                Key=directory_key(room),
                UpdateExpression=LOWER,
                ConditionExpression="attribute_exists(PK)",
                ExpressionAttributeValues={":less": -members},
                ReturnValues="UPDATED_NEW",
            )
            if response["Attributes"]["members"] <= 0:
                self._close(room)
        except self._refused:
            pass  # the row has expired, and so have all the members it counted
        except (ClientError, BotoCoreError):
            log.exception("a room's count may be too high until its row expires")

    def _close(self, room: str) -> None:
        try:
            self._table.delete_item(
                Key=directory_key(room),
                ConditionExpression="members <= :none",
                ExpressionAttributeValues={":none": 0},
            )
        except self._refused:
            pass  # somebody has entered meanwhile


def _lower_once(
    response: Any, caught_exception: Exception | None, request_dict: Any, **_: Any
) -> None:
    """Keep boto3 from repeating a `LOWER` that may have lowered the count: raise its failure.

    A handler of the event `needs-retry` (Boto3 guide: "Extensibility"). After a refusal, such as
    throttling, boto3 decides as usual.
    """
    if LOWER.encode() not in request_dict["body"]:
        return
    if caught_exception is not None:
        raise caught_exception
    http, parsed = response
    if http.status_code >= 500:
        raise ClientError(parsed, "UpdateItem")
    http.headers.pop("x-amz-crc32", None)  # boto3 would retry a success whose checksum is wrong
