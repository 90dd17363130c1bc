"""The chat's table over botocore alone: the part of boto3's `Table` that the chat uses.

boto3's own would cost a cold start a third more CPU.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

from chalicelib.rows import Item

# The parameters and results that are rows, or parts of one.
ROWS = {"Item", "Key", "ExpressionAttributeValues", "ExclusiveStartKey"}
FOUND = {"Attributes", "LastEvaluatedKey"}


class Table:
    """Operations take and return rows of Python's strings and integers.

    `table.meta.client` has all of DynamoDB's operations, by its names; `table.put_item` and the
    like are those of this table. Other types of attributes stay in DynamoDB's own notation, and so
    do the rows in errors.
    """

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self.meta = SimpleNamespace(client=client)
        client.meta.events.register("before-parameter-build.dynamodb", _encode_parameters)
        client.meta.events.register("after-call.dynamodb", _decode_result)

    def __getattr__(self, operation: str) -> Any:
        return partial(getattr(self.meta.client, operation), TableName=self.name)


def _encode_parameters(params: Item, **_: Any) -> None:
    params.update(_encoded(params))


def _encoded(params: Item) -> Item:
    encoded: Item = {name: _encode(params[name]) for name in params.keys() & ROWS}
    if "TransactItems" in params:
        encoded["TransactItems"] = [
            {kind: action | _encoded(action) for kind, action in item.items()}
            for item in params["TransactItems"]
        ]
    return encoded


def _decode_result(parsed: Item, **_: Any) -> None:
    for name in parsed.keys() & FOUND:
        parsed[name] = _decode(parsed[name])
    if "Items" in parsed:
        parsed["Items"] = [_decode(row) for row in parsed["Items"]]


def _encode(row: Item) -> Item:
    return {
        name: {"S": value} if isinstance(value, str) else {"N": str(value)}
        for name, value in row.items()
    }


def _decode(row: Item) -> Item:
    return {name: _value(**attribute) for name, attribute in row.items()}


def _value(S: str | None = None, N: str | None = None, **other: Any) -> Any:
    if S is not None:
        return S
    return other if N is None else int(N)
