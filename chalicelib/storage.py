"""The table: who is connected, under which nickname, in which room.

| PK            | SK                   | attributes                      | what it says               |
|---------------|----------------------|---------------------------------|----------------------------|
| connection id | `username_{name}`    | room, expires_at                | an open connection         |
| connection id | `room_{room}`        | username, joined_at, expires_at | it is a member of the room |
| `rooms`       | `open_{room}`        | members, expires_at             | the directory of the rooms |
| `usernames`   | `taken_{folded name}`| connection_id, expires_at       | the claim on a nickname    |

The index `ReverseLookup` swaps the two keys: its partition `room_{room}` is the members.

Why the writes are safe together:

* The `username_` row alone says what a connection is: its name in the key, its room beside
  it. It is read and written as one item. Every change is a transaction that holds only if
  that row is still as it was read; otherwise `StaleRecord` says so, and nothing changed. So
  two frames of one connection, however they interleave, act one after the other.
* The member's row and the claim change in that same transaction, so they never disagree.
* A room's count is not in the transaction: DynamoDB cancels transactions that meet on one
  item, and a thousand people who join one room would meet there. It is a plain `ADD`,
  raised before somebody enters and lowered after somebody left. A crash in between leaves
  it too high, never too low: an empty room may be listed until its row expires, an occupied
  one is never hidden.
* `expires_at` (Unix time in seconds) is when the connection is certainly closed. DynamoDB
  deletes such rows, but late, so every read leaves them out.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import names
from chalicelib.log import count, log

CONNECTION_SECONDS = 2 * 60 * 60  # API Gateway quotas: "Connection duration for WebSocket API"
GRACE_SECONDS = 60  # for `$disconnect` to arrive, and for clocks that differ
LIFETIME_SECONDS = CONNECTION_SECONDS + GRACE_SECONDS

# One call may take 4 attempts of 4 s and 7 s of back-off: it fits, with room for the answer,
# into the 29 s that API Gateway waits for an integration.
CLIENT_CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 4},
)

# Why a transaction was cancelled that may well succeed a moment later (TransactWriteItems).
_PASSING_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}

Item = dict[str, Any]


class StaleRecord(Exception):
    """The connection is not, or no longer, as the caller read it. Read it again and decide anew."""


class NicknameTaken(Exception):
    """Another connection, `holder`, has a claim on the nickname."""

    def __init__(self, username: str, holder: str) -> None:
        super().__init__(username, holder)
        self.holder = holder


class _Refused(Exception):
    """A transaction was cancelled because conditions did not hold."""

    def __init__(self, reasons: list[Item]) -> None:
        super().__init__(reasons)
        self._reasons = reasons

    def by(self, action: int) -> bool:
        return self._reasons[action]["Code"] == "ConditionalCheckFailed"

    def item(self, action: int) -> Item:
        """What was there instead, in DynamoDB's own notation."""
        return self._reasons[action]["Item"]


@dataclass(frozen=True)
class Connection:
    """A connection as its row in the table says: `username` is empty until it has one."""

    id: str
    username: str
    room: str | None
    expires_at: int


@dataclass(frozen=True)
class Member:
    """A member of a room as the index says; `joined_at` is in microseconds."""

    connection_id: str
    username: str
    joined_at: int


class Storage:
    """Reads and writes of the table. Costs are in requests to DynamoDB.

    Every method lets botocore's `ClientError` and `BotoCoreError` through, after the client
    has retried what can be retried (throttling, a 500, a lost connection).
    """

    def __init__(self, table: Any = None, *, clock: Callable[[], float] = time.time) -> None:
        """`table` is a boto3 `Table`; without one, the table that TABLE names, opened at first use.

        `clock` gives Unix time in seconds.
        """
        self._given_table = table
        self._clock = clock

    @classmethod
    def from_env(cls) -> "Storage":
        """The table that the environment variable TABLE names.

        Nothing is looked up before the first use, so that `chalice package` and tests can
        import the app without a region, credentials or a network. The first use raises
        `RuntimeError` if TABLE is missing or empty. In Lambda the table is opened at once,
        which costs no request: the first person need not wait for it.
        """
        storage = cls()
        if "AWS_LAMBDA_FUNCTION_NAME" in os.environ and os.environ.get("TABLE"):
            storage._table  # noqa: B018
        return storage

    @cached_property
    def _table(self) -> Any:
        if self._given_table is not None:
            return self._given_table
        name = os.environ.get("TABLE")
        if not name:
            raise RuntimeError(
                "The environment variable TABLE is not set. It names the DynamoDB table: "
                "resources.json sets it on every function; elsewhere, set it yourself."
            )
        return boto3.resource("dynamodb", config=CLIENT_CONFIG).Table(name)

    @property
    def _client(self) -> Any:
        return self._table.meta.client

    # Connections

    def create_connection(self, connection_id: str) -> None:
        """Note a connection that has opened and has no nickname yet. 1 request."""
        expires_at = int(self._clock()) + LIFETIME_SECONDS
        self._table.put_item(Item=_row(Connection(connection_id, "", None, expires_at)))
        count(ConnectionsOpened=1)

    def find_connection(self, connection_id: str) -> Connection | None:
        """The connection as it is now, or None if it is unknown or expired.

        1 request, a consistent read; 2 if the row is not there, or is there twice. A query
        may meet a rename half-way, since only single items are isolated from transactions
        (Amazon DynamoDB transactions: isolation levels); the second read comes after it.
        """
        connection = self._read(connection_id)
        return connection if connection and self._is_alive(connection.expires_at) else None

    def get_record_by_connection(self, connection_id: str) -> dict[str, str]:
        """What is known of a connection: `username`, and `room` if it is in one.

        Empty for an unknown connection; the username is empty for one without a nickname.
        Costs as `find_connection`.
        """
        connection = self.find_connection(connection_id)
        if connection is None:
            return {}
        record = {"username": connection.username}
        if connection.room is not None:
            record["room"] = connection.room
        return record

    def delete_connection(self, connection_id: str) -> Connection | None:
        """Remove a connection: its nickname is free, its room has a member less.

        Returns it as it was, to the one caller that removed it; None to any other, and for
        an expired one, which nobody sees any more. 1 read, then 1 transaction and 1 write,
        and 1 more if it was the last in its room.
        """
        for pause in pauses():
            connection = self._read(connection_id)
            if connection is None:
                return None
            try:
                self._delete(connection)
            except StaleRecord:
                time.sleep(pause)
                continue
            count(ConnectionsClosed=1)
            if not self._is_alive(connection.expires_at):
                return None
            if connection.room is not None:
                self._count_out(connection.room)
            return connection
        raise StaleRecord(connection_id)

    # Nicknames

    def set_username(
        self,
        connection_id: str,
        old_name: str,
        username: str,
        connection: Connection | None = None,
    ) -> None:
        """Give a connection a nickname, claim it, and let go of the old one.

        `connection` saves 1 read if the caller has just done it; the write is 1 transaction.
        Raises `NicknameTaken` if another connection holds it, and `StaleRecord` if the
        connection is not called `old_name`; then nothing has changed.
        """
        connection = connection or self.find_connection(connection_id)
        if connection is None or connection.username != old_name:
            raise StaleRecord(connection_id)
        if username == old_name:
            return
        renamed = replace(connection, username=username)
        actions = [
            self._delete_row(connection, **_unchanged(connection)),
            self._claim(renamed),
            self._put(_row(renamed)),
        ]
        if old_name and names.claim(old_name) != names.claim(username):
            actions.append(self._release(connection))
        if renamed.room is not None:
            actions.append(self._rename_member(renamed))
        try:
            self._transact(actions)
        except _Refused as refused:
            if refused.by(0) or not refused.by(1):
                raise StaleRecord(connection_id) from None
            raise NicknameTaken(username, refused.item(1)["connection_id"]["S"]) from None

    def release_nickname(self, username: str, holder: str) -> None:
        """Free a nickname if `holder`, a connection that is gone, still has it. 1 request."""
        try:
            self._table.delete_item(
                Key=_claim_key(username),
                ConditionExpression="connection_id = :holder",
                ExpressionAttributeValues={":holder": holder},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            pass  # somebody else's by now, or free

    # Rooms

    def list_rooms(self) -> set[str]:
        """The names of the rooms that have members. 1 request for each MB of the directory."""
        rows = self._query(
            KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
            ExpressionAttributeValues={":pk": "rooms", ":prefix": "open_"},
            ConsistentRead=True,
        )
        return {_suffix(row["SK"]) for row in rows if row["members"] > 0}

    def set_room(self, connection_id: str, room: str, connection: Connection | None = None) -> None:
        """Move a connection into a room, out of the one it was in.

        `connection` saves 1 read if the caller has just done it. 1 write and 1 transaction;
        1 or 2 writes more if it was in another room. Raises `StaleRecord` if the connection
        is unknown or changed meanwhile; then it is where it was.
        """
        connection = connection or self.find_connection(connection_id)
        if connection is None:
            raise StaleRecord(connection_id)
        moved = replace(connection, room=room)
        enters = connection.room != room
        actions = [
            self._put(_row(moved), **_unchanged(connection)),
            self._put(_member_row(moved, joined_at=self._now_us())),
        ]
        if enters and connection.room is not None:
            actions.append(self._delete_member(connection))
        if enters:
            self._count_in(room)
        try:
            self._transact(actions)
        except _Refused:
            if enters:
                self._count_out(room)
            raise StaleRecord(connection_id) from None
        except ClientError:
            found = self.find_connection(connection_id)
            if enters and (found is None or found.room != room):
                self._count_out(room)
            raise
        if enters and connection.room is not None:
            self._count_out(connection.room)

    def remove_room(
        self, connection_id: str, room: str, connection: Connection | None = None
    ) -> None:
        """Take a connection out of a room; nothing happens if it is not in it.

        `connection` saves 1 read if the caller has just done it. 1 transaction and 1 write,
        and 1 more if it was the last one there. Raises `StaleRecord` if the connection
        changed meanwhile; then it is where it was.
        """
        connection = connection or self.find_connection(connection_id)
        if connection is None or connection.room != room:
            return
        outside = replace(connection, room=None)
        try:
            self._transact(
                [
                    self._put(_row(outside), **_unchanged(connection)),
                    self._delete_member(connection),
                ]
            )
        except _Refused:
            raise StaleRecord(connection_id) from None
        self._count_out(room)

    def get_connection_ids_by_room(self, room: str) -> list[str]:
        """The ids of a room's members. 1 request for each MB of them."""
        return list(self.iter_connection_ids_by_room(room))

    def iter_connection_ids_by_room(self, room: str) -> Iterator[str]:
        """The ids of a room's members, read page by page as they are taken.

        The index is eventually consistent: who has just joined may be missing, who has just
        left may still be there.
        """
        rows = self._member_rows(room, ProjectionExpression="PK, expires_at")
        return (row["PK"] for row in rows)

    def iter_members(self, room: str) -> Iterator[Member]:
        """A room's members in no order; pages and promises as `iter_connection_ids_by_room`."""
        return (
            Member(row["PK"], row.get("username", ""), int(row.get("joined_at", 0)))
            for row in self._member_rows(room)
        )

    # Reads

    def _member_rows(self, room: str, **options: Any) -> Iterator[Item]:
        return self._query(
            IndexName="ReverseLookup",
            KeyConditionExpression="SK = :sk",
            ExpressionAttributeValues={":sk": f"room_{room}"},
            **options,
        )

    def _query(self, **request: Any) -> Iterator[Item]:
        """The rows of every page that have not expired."""
        while True:
            page = self._client.query(TableName=self._table.name, **request)
            for row in page["Items"]:
                if "expires_at" not in row or self._is_alive(row["expires_at"]):
                    yield row
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _read(self, connection_id: str) -> Connection | None:
        """The connection, expired or not."""
        rows = self._username_rows(connection_id)
        if len(rows) != 1:
            rows = self._username_rows(connection_id)
        if not rows:
            return None
        row = rows[0]
        expires_at = row.get("expires_at", int(self._clock()) + LIFETIME_SECONDS)
        return Connection(connection_id, _suffix(row["SK"]), row.get("room"), int(expires_at))

    def _username_rows(self, connection_id: str) -> list[Item]:
        page = self._client.query(
            TableName=self._table.name,
            KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
            ExpressionAttributeValues={":pk": connection_id, ":prefix": "username_"},
            ConsistentRead=True,
        )
        return page["Items"]

    def _is_alive(self, expires_at: Any) -> bool:
        return expires_at > self._clock()

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)

    # The directory's counts

    def _count_in(self, room: str) -> None:
        """Count one member more. A row that has expired, but is still there, starts anew."""
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
                    Key=_directory_key(room),
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                )
                return
            except self._client.exceptions.ConditionalCheckFailedException:
                continue
        raise RuntimeError(f"The directory's row expired while it was renewed: {room!r}")

    def _count_out(self, room: str) -> None:
        """Count one member less, and close the room after the last one.

        Where the client had to send the request again, the first one may have counted too.
        As many are put back: the count may only be wrong by being too high. For the same
        reason a failure is logged and not raised: who left has left.
        """
        try:
            response = self._change_count(room, -1)
            retries = response["ResponseMetadata"].get("RetryAttempts", 0)
            if retries:
                response = self._change_count(room, retries)
            if response["Attributes"]["members"] <= 0:
                self._close(room)
        except self._client.exceptions.ConditionalCheckFailedException:
            pass  # no such row: it has expired, with all whom it counted
        except (ClientError, BotoCoreError):
            log.exception("the count of a room may be too high until it expires")

    def _change_count(self, room: str, change: int) -> Any:
        return self._table.update_item(
            Key=_directory_key(room),
            UpdateExpression="ADD members :change",
            ConditionExpression="attribute_exists(PK)",
            ExpressionAttributeValues={":change": change},
            ReturnValues="UPDATED_NEW",
        )

    def _close(self, room: str) -> None:
        try:
            self._table.delete_item(
                Key=_directory_key(room),
                ConditionExpression="members <= :none",
                ExpressionAttributeValues={":none": 0},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            pass  # somebody has come in meanwhile

    # Transactions

    def _transact(self, actions: list[Item]) -> None:
        """All of the actions, or none: then raises `_Refused`.

        Where it met another transaction on the same item, or was throttled, it is tried again.
        """
        for pause in pauses():
            try:
                self._client.transact_write_items(TransactItems=actions)
                return
            except self._client.exceptions.TransactionCanceledException as error:
                reasons = error.response["CancellationReasons"]
                if any(reason["Code"] == "ConditionalCheckFailed" for reason in reasons):
                    raise _Refused(reasons) from None
                if not any(reason["Code"] in _PASSING_REASONS for reason in reasons):
                    raise
                cancelled = error
            time.sleep(pause)
        raise cancelled

    def _delete(self, connection: Connection, has_claim: bool = True) -> None:
        """All rows of a connection. Raises `StaleRecord`."""
        actions = [self._delete_row(connection, **_unchanged(connection))]
        if connection.room is not None:
            actions.append(self._delete_member(connection))
        if connection.username and has_claim:
            actions.append(self._release(connection))
        try:
            self._transact(actions)
        except _Refused as refused:
            if refused.by(0):
                raise StaleRecord(connection.id) from None
            # Its claim has expired and is somebody else's by now: that stays.
            self._delete(connection, has_claim=False)

    def _claim(self, connection: Connection) -> Item:
        return self._put(
            {
                **_claim_key(connection.username),
                "connection_id": connection.id,
                "expires_at": connection.expires_at,
            },
            ConditionExpression=f"{_ABSENT_OR_EXPIRED} OR connection_id = :me",
            ExpressionAttributeValues={":me": connection.id, ":now": int(self._clock())},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    def _release(self, connection: Connection) -> Item:
        return self._delete_item(
            _claim_key(connection.username),
            ConditionExpression="attribute_not_exists(PK) OR connection_id = :me",
            ExpressionAttributeValues={":me": connection.id},
        )

    def _rename_member(self, connection: Connection) -> Item:
        return {
            "Update": {
                "TableName": self._table.name,
                "Key": _member_key(connection),
                "UpdateExpression": "SET username = :name",
                "ConditionExpression": "attribute_exists(PK)",
                "ExpressionAttributeValues": {":name": connection.username},
            }
        }

    def _delete_row(self, connection: Connection, **condition: Any) -> Item:
        return self._delete_item(_key(connection), **condition)

    def _delete_member(self, connection: Connection) -> Item:
        return self._delete_item(_member_key(connection))

    def _put(self, item: Item, **condition: Any) -> Item:
        return {"Put": {"TableName": self._table.name, "Item": item, **condition}}

    def _delete_item(self, key: Item, **condition: Any) -> Item:
        return {"Delete": {"TableName": self._table.name, "Key": key, **condition}}


_ABSENT_OR_EXPIRED = "attribute_not_exists(PK) OR expires_at <= :now"


def pauses() -> Iterator[float]:
    """Seconds to wait after each failed attempt: exponential back-off with full jitter.

    8 attempts, at most 3.2 s of pauses in all (AWS Architecture Blog: "Exponential Backoff
    And Jitter").
    """
    for attempt in range(8):
        yield random.uniform(0, 0.025 * 2**attempt)


def _unchanged(connection: Connection) -> Item:
    """The condition that a connection's row, whose key has its name, is as it was read."""
    if connection.room is None:
        return {"ConditionExpression": "attribute_exists(PK) AND attribute_not_exists(room)"}
    return {
        "ConditionExpression": "room = :room",
        "ExpressionAttributeValues": {":room": connection.room},
    }


def _row(connection: Connection) -> Item:
    row = {**_key(connection), "expires_at": connection.expires_at}
    return row if connection.room is None else {**row, "room": connection.room}


def _member_row(connection: Connection, joined_at: int) -> Item:
    return {
        **_member_key(connection),
        "username": connection.username,
        "joined_at": joined_at,
        "expires_at": connection.expires_at,
    }


def _key(connection: Connection) -> Item:
    return {"PK": connection.id, "SK": f"username_{connection.username}"}


def _member_key(connection: Connection) -> Item:
    return {"PK": connection.id, "SK": f"room_{connection.room}"}


def _directory_key(room: str) -> Item:
    return {"PK": "rooms", "SK": f"open_{room}"}


def _claim_key(username: str) -> Item:
    return {"PK": "usernames", "SK": f"taken_{names.claim(username)}"}


def _suffix(sort_key: str) -> str:
    return sort_key.split("_", 1)[1]
