"""moto's table, read and written in memory, since a request to moto takes milliseconds."""

import copy
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.exceptions import JsonRESTError
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.responses import DynamoHandler

from tests.tables import create_table

REGION = "us-east-1"

Row = dict[str, Any]

_deserialize = TypeDeserializer().deserialize
_serialize = TypeSerializer().serialize


@cache
def table() -> Any:
    """boto3's `Table`, one for all tests: creating it takes longer than most of them."""
    table = create_table(boto3.resource("dynamodb", region_name=REGION))
    table.meta.client.meta.events.register_last("before-call.dynamodb", answer_without_http)
    return table


def answer_without_http(model: Any, params: Any, **_: Any) -> Any:
    """moto's answer; or None if it is an error, which boto3 then gets over HTTP.

    boto3's and moto's HTTP take most of the time of a request.
    """
    handler = DynamoHandler()
    handler.current_account, handler.region = DEFAULT_ACCOUNT_ID, REGION
    handler.body = json.loads(params["body"])
    try:
        answer = getattr(handler, xform_name(model.name))().result
    except JsonRESTError:
        return None
    return AWSResponse(params["url"], 200, {}, None), {**answer, "ResponseMetadata": {}}


def rows() -> list[Row]:
    return [
        {name: _deserialize(value) for name, value in item.to_json()["Attributes"].items()}
        for items in _in_memory().items.values()
        for item in items.values()
    ]


def write(rows: Iterable[Row]) -> None:
    for row in rows:
        _in_memory().put_item({name: _serialize(value) for name, value in row.items()})


def clear() -> None:
    _in_memory().items.clear()


def _in_memory() -> Any:
    return dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables[table().name]


class CopiesLittle:
    """Replaces `copy` for moto's transactions, which copy the whole table for each action.

    They need only the first copy, for a rollback, and change only the rows that they name.
    """

    def deepcopy(self, thing: Any) -> Any:
        transaction = sys._getframe(1)
        if transaction.f_code.co_name != "transact_write_items":
            return copy.deepcopy(thing)
        copies: dict[str, Any] = transaction.f_locals["original_table_state"]
        return copies.get(thing.name) or self._copy(thing, transaction.f_locals["transact_items"])

    def _copy(self, table: Any, actions: list[dict[str, Any]]) -> Any:
        original = copy.copy(table)
        original.items = defaultdict(dict)
        for hash_key, items in table.items.items():
            original.items[hash_key] = items.copy()
        for action in actions:
            for operation in action.values():
                if "Key" in operation:  # the others replace their row
                    partition, sort_key = (DynamoType(operation["Key"][k]) for k in ("PK", "SK"))
                    if item := table.get_item(partition, sort_key):
                        original.items[partition][sort_key] = copy.deepcopy(item)
        return original
