"""The table over botocore takes and returns the rows that boto3's `Table` does."""

from typing import Any

import pytest

from chalicelib.aws import open_table
from chalicelib.table import Table

ROW = {"PK": "John", "SK": "username_", "expires_at": 5, "joined_at": 1_700_000_000_000_000}
KEY = {"PK": "John", "SK": "username_"}


@pytest.fixture
def own(table: Any, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setenv("TABLE", table.name)
    return open_table()


def query(table: Any, **options: Any) -> Any:
    return table.meta.client.query(
        TableName=table.name,
        KeyConditionExpression="PK = :pk",
        ExpressionAttributeValues={":pk": "John"},
        **options,
    )


def test_a_row_comes_back_as_it_was_put(own: Table, table: Any) -> None:
    own.put_item(Item=ROW)
    assert query(own)["Items"] == query(table)["Items"] == [ROW]


def test_an_update_returns_the_new_values(own: Table) -> None:
    own.put_item(Item=ROW)
    answer = own.update_item(
        Key=KEY,
        UpdateExpression="ADD expires_at :one",
        ExpressionAttributeValues={":one": 1},
        ReturnValues="UPDATED_NEW",
    )
    assert answer["Attributes"] == {"expires_at": 6}


def test_pages_follow_each_other(own: Table) -> None:
    rows = [{"PK": "John", "SK": f"room_{n}"} for n in range(2)]
    for row in rows:
        own.put_item(Item=row)
    first = query(own, Limit=1)
    second = query(own, Limit=1, ExclusiveStartKey=first["LastEvaluatedKey"])
    assert first["Items"] + second["Items"] == rows


def test_a_transaction_takes_rows_and_keys_and_leaves_them_as_they_are(own: Table) -> None:
    own.put_item(Item=ROW)
    new = {"PK": "John", "SK": "username_John"}
    put = {"Put": {"TableName": own.name, "Item": new}}
    delete = {
        "Delete": {
            "TableName": own.name,
            "Key": KEY,
            "ConditionExpression": "expires_at = :five",
            "ExpressionAttributeValues": {":five": 5},
        }
    }
    own.meta.client.transact_write_items(TransactItems=[put, delete])
    assert query(own)["Items"] == [new]
    assert put["Put"]["Item"] is new
    assert delete["Delete"]["Key"] is KEY


def test_an_error_has_dynamodbs_own_notation(own: Table) -> None:
    own.put_item(Item=ROW)
    refused = own.meta.client.exceptions.ConditionalCheckFailedException
    with pytest.raises(refused) as caught:
        own.put_item(
            Item=KEY,
            ConditionExpression="attribute_not_exists(PK)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert caught.value.response["Item"]["expires_at"] == {"N": "5"}


def test_other_types_stay_in_dynamodbs_own_notation(own: Table, table: Any) -> None:
    table.put_item(Item=KEY | {"beloved": True})
    assert query(own)["Items"] == [KEY | {"beloved": {"BOOL": True}}]
