"""The directory of the rooms: which are open, and how many members each has.

A count changes by a plain `ADD`, outside the transactions that move people: inside, they would
conflict on a popular room's row. It is raised before somebody enters and lowered after somebody has
left, so a crash in between leaves it too high, never too low: an empty room may be listed until its
row expires, but an occupied room is never hidden.
"""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.invocation import log
from chalicelib.storage.rows import LIFETIME_SECONDS, directory_key


class Rooms:
    """Counts the members of the rooms. Costs are in requests to DynamoDB."""

    def __init__(self, table: Any, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self._refused = table.meta.client.exceptions.ConditionalCheckFailedException

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
        """Subtract members, and close the room if it is empty. 1 request; 1 more to close, and 1
        more if boto3 retried. Failures are logged, not raised: the members have left."""
        try:
            response = self._change(room, -members)
            retries = response["ResponseMetadata"].get("RetryAttempts", 0)
            if retries:  # each retry may have counted too; a count must not be too low
                response = self._change(room, retries * members)
            if response["Attributes"]["members"] <= 0:
                self._close(room)
        except self._refused:
            pass  # the row has expired, and so have all the members it counted
        except (ClientError, BotoCoreError):
            log.exception("a room's count may be too high until its row expires")

    def _change(self, room: str, change: int) -> Any:
        return self._table.update_item(
            Key=directory_key(room),
            UpdateExpression="ADD members :change",
            ConditionExpression="attribute_exists(PK)",
            ExpressionAttributeValues={":change": change},
            ReturnValues="UPDATED_NEW",
        )

    def _close(self, room: str) -> None:
        try:
            self._table.delete_item(
                Key=directory_key(room),
                ConditionExpression="members <= :none",
                ExpressionAttributeValues={":none": 0},
            )
        except self._refused:
            pass  # somebody has entered meanwhile
