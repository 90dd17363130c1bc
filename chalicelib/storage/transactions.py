"""DynamoDB's transactions: the actions that the chat needs, and their conditions."""

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from chalicelib import invocation
from chalicelib.storage.rows import Connection, Item, claim_key

# Reasons for cancellation that are worth a retry (TransactWriteItems).
_PASSING_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}

_deserialize = TypeDeserializer().deserialize

Done = TypeVar("Done")


class StaleRecord(Exception):
    """The connection is not, or no longer, as the caller read it. Read it again and retry."""


class Conflict(StaleRecord):
    """Other transactions kept changing the same rows. This one has changed nothing."""


class NicknameTaken(Exception):
    """Another connection, `holder`, has claimed the nickname."""

    def __init__(self, holder: str, *, is_new: bool = False) -> None:
        """`is_new`: may still be connecting; until then API Gateway reports it gone."""
        super().__init__(holder)
        self.holder = holder
        self.is_new = is_new


class Refused(Exception):
    """A transaction was cancelled because conditions did not hold. `found` maps the name of each
    action that failed to the current row, which is empty if there is none."""

    def __init__(self, found: dict[Any, Item]) -> None:
        super().__init__(f"{len(found)} conditions did not hold")
        self.found = found


def has_written_nothing(error: ClientError | Conflict) -> bool:
    """Whether a failed request has certainly changed nothing: its only attempt was refused."""
    if isinstance(error, Conflict):
        return True
    metadata = error.response.get("ResponseMetadata", {})
    return metadata.get("HTTPStatusCode", 400) < 500 and not metadata.get("RetryAttempts")


class Transactions:
    """Writes rows of the table, all or none."""

    def __init__(self, table: Any) -> None:
        self._table = table.name
        self._client = table.meta.client

    def transact(self, actions: dict[Any, Item]) -> None:
        """Carry out all the named actions, or none. 1 request.

        Raises `Refused` if a condition fails. Throttling and conflicts with other transactions are
        retried; the last conflict raises `Conflict`. Other errors are botocore's.
        """
        for pause in pauses():
            try:
                self._client.transact_write_items(TransactItems=list(actions.values()))
                return
            except self._client.exceptions.TransactionCanceledException as error:
                reasons = error.response["CancellationReasons"]
                found = {
                    name: _row(reason.get("Item", {}))
                    for name, reason in zip(actions, reasons, strict=True)
                    if reason["Code"] == "ConditionalCheckFailed"
                }
                if found:
                    raise Refused(found) from None
                codes = {reason["Code"] for reason in reasons}
                if not codes & _PASSING_REASONS:
                    raise
                cancelled = Conflict() if "TransactionConflict" in codes else error
            time.sleep(pause)
        raise cancelled

    def put(self, row: Item, **condition: Any) -> Item:
        return {"Put": {"TableName": self._table, "Item": row, **condition}}

    def replace_row(self, old: Connection, new: Connection) -> Item:
        """Replace a connection's row if the old one is still as it was read."""
        return self.put(new.row, **_unchanged(old))

    def delete_row(self, connection: Connection) -> Item:
        """Delete a connection's row if it is as it was read; `Refused` has the current row."""
        return self._delete(
            connection.key, **_unchanged(connection), ReturnValuesOnConditionCheckFailure="ALL_OLD"
        )

    def delete_member(self, connection: Connection) -> Item:
        return self._delete(connection.member_key)

    def rename_member(self, connection: Connection) -> Item:
        return {
            "Update": {
                "TableName": self._table,
                "Key": connection.member_key,
                "UpdateExpression": "SET username = :name",
                "ConditionExpression": "attribute_exists(PK)",
                "ExpressionAttributeValues": {":name": connection.nickname},
            }
        }

    def claim(self, connection: Connection, now: int, holder: str | None = None) -> Item:
        """Claim a connection's nickname if it is free, expired, or held by `holder`, by default the
        connection itself. `Refused` has the current claim."""
        return self._take(connection.claim_row, now, holder or connection.id)

    def take_account(self, connection: Connection, now: int, holder: str) -> Item:
        """Make this its account's connection, if the current one is `holder`, expired or missing;
        otherwise `Refused` has the current row."""
        return self._take(connection.account_row, now, holder)

    def release(self, connection: Connection) -> Item:
        """Delete the connection's claim, unless it has expired and now belongs to somebody else."""
        return self._delete(
            claim_key(connection.nickname),
            ConditionExpression="attribute_not_exists(PK) OR connection_id = :me",
            ExpressionAttributeValues={":me": connection.id},
        )

    def _take(self, row: Item, now: int, holder: str) -> Item:
        return self.put(
            row,
            ConditionExpression="attribute_not_exists(PK) OR expires_at <= :now "
            "OR connection_id = :holder",
            ExpressionAttributeValues={":holder": holder, ":now": now},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    def _delete(self, key: Item, **condition: Any) -> Item:
        return {"Delete": {"TableName": self._table, "Key": key, **condition}}


def _unchanged(connection: Connection) -> Item:
    """The condition that a connection's row is as it was read; its key implies the name."""
    if connection.room is None:
        return {"ConditionExpression": "attribute_exists(PK) AND attribute_not_exists(room)"}
    return {
        "ConditionExpression": "room = :room",
        "ExpressionAttributeValues": {":room": connection.room},
    }


def _row(item: Item) -> Item:
    return {name: _deserialize(value) for name, value in item.items()}


def until_current(attempt: Callable[[], Done], attempts: int = 8) -> Done:
    """Repeat an attempt that raises `StaleRecord`; the attempt reads the records again each time.

    Makes at most `attempts` (up to 8), and fewer near the invocation's deadline. Raises the last
    `StaleRecord`, and `Conflict` at once, since its own retries are used up.
    """
    for pause in islice(pauses(), attempts):
        try:
            return attempt()
        except Conflict:
            raise
        except StaleRecord as error:
            stale = error
        time.sleep(pause)
    raise stale


def pauses() -> Iterator[float]:
    """Seconds to wait after each of 8 failed attempts: exponential back-off with full jitter, at
    most 3.2 s in all, none after the last (AWS Architecture Blog: "Exponential Backoff And
    Jitter"). Ends early near the invocation's deadline."""
    for attempt in range(7):
        yield random.uniform(0, 0.025 * 2**attempt)
        if invocation.is_ending():
            return
    yield 0.0
