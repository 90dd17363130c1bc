"""Reads of the table. Every read ignores expired rows, unless its docstring says otherwise."""

from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.storage.rows import LIFETIME_SECONDS, Connection, Item, connection, suffix


class Reads:
    """Costs are in requests to DynamoDB."""

    def __init__(self, table: Any, clock: Callable[[], float]) -> None:
        self._table = table.name
        self._client = table.meta.client
        self._clock = clock

    def connection(self, connection_id: str) -> Connection | None:
        """The connection, expired or not; see `Storage.find_connection` for the cost."""
        for _ in range(2):
            rows = self._rows_of(connection_id)
            if len(rows) == 1:
                break
        return connection(rows[0], int(self._clock()) + LIFETIME_SECONDS) if rows else None

    def holder(self, account: str) -> str | None:
        """The id of an account's latest connection, open or closed; None if that is unknown or
        would have expired. 1 request."""
        rows = self._query(
            None,
            KeyConditionExpression="PK = :pk AND SK = :sk",
            ExpressionAttributeValues={":pk": "accounts", ":sk": f"account_{account}"},
            ConsistentRead=True,
        )
        return next((row["connection_id"] for row in rows), None)

    def open(self) -> None:
        """Connect to DynamoDB by reading a row that does not exist. 1 request, without retries."""
        event = "needs-retry.dynamodb.Query"
        self._client.meta.events.register_first(event, _give_up)
        try:
            self._rows_of("nobody")
        finally:
            self._client.meta.events.unregister(event, _give_up)

    def _rows_of(self, connection_id: str) -> list[Item]:
        """The `username_` rows of a connection, expired or not. 1 request."""
        found: list[Item] = self._client.query(
            TableName=self._table,
            KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
            ExpressionAttributeValues={":pk": connection_id, ":prefix": "username_"},
            ConsistentRead=True,
        )["Items"]
        return found

    def members(self, room: str, attributes: str, limit: int | None = None) -> Iterator[Item]:
        """Rows of a room's members with only these attributes: reading a third one takes a quarter
        more CPU."""
        return self._query(
            limit,
            IndexName="ReverseLookup",
            KeyConditionExpression="SK = :sk",
            ProjectionExpression=attributes,
            ExpressionAttributeValues={":sk": f"room_{room}"},
        )

    def rooms(self, limit: int | None = None) -> Iterator[str]:
        """The names of the rooms that have members, sorted."""
        rows = self._query(
            limit,
            KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
            ExpressionAttributeValues={":pk": "rooms", ":prefix": "open_"},
            ConsistentRead=True,
        )
        return (suffix(row["SK"]) for row in rows if row["members"] > 0)

    def _query(
        self, limit: int | None, ExpressionAttributeValues: Item, **request: Any
    ) -> Iterator[Item]:
        """The rows of all pages; a page has `limit` rows, or 1 MB."""
        request |= {
            "TableName": self._table,
            "FilterExpression": "expires_at > :now",
            "ExpressionAttributeValues": ExpressionAttributeValues | {":now": int(self._clock())},
            **({"Limit": limit} if limit else {}),
        }
        while True:
            page = self._client.query(**request)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _give_up(response: Any, caught_exception: Exception | None, **_: Any) -> None:
    """A handler of botocore's event `needs-retry`: failures are raised, not retried."""
    if caught_exception is not None:
        raise caught_exception
    http, parsed = response
    if http.status_code != 200:
        raise ClientError(parsed, "Query")
