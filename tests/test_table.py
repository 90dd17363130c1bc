"""The table's own client does what boto3's does, and retries when DynamoDB fails."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from chalicelib import table as module
from chalicelib.aws import open_table
from chalicelib.rooms import Rooms
from chalicelib.table import Table
from tests.dynamodb import DynamoDB, drop

ROW = {"PK": "John", "SK": "username_", "expires_at": 5, "joined_at": 1_700_000_000_000_000}
KEY = {"PK": "John", "SK": "username_"}


@pytest.fixture
def dynamodb(table: Any) -> Iterator[DynamoDB]:
    with DynamoDB() as server:
        yield server


@pytest.fixture
def own(table: Any, dynamodb: DynamoDB, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setenv("TABLE", table.name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
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


# Failures


THROTTLED = (400, {"__type": "com.amazon.coral.availability#ThrottlingException"})


@pytest.mark.parametrize("failure", [drop, (500, {}), (503, "<html>"), THROTTLED])
def test_passing_failures_are_retried(own: Table, dynamodb: DynamoDB, failure: Any) -> None:
    dynamodb.failures += [failure] * 3
    answer = own.put_item(Item=ROW)
    assert answer["ResponseMetadata"]["RetryAttempts"] == 3
    assert query(own)["Items"] == [ROW]


@pytest.mark.parametrize(
    ("failure", "code"), [((500, {}), "500"), (THROTTLED, "ThrottlingException")]
)
def test_the_fourth_failure_is_raised(
    own: Table, dynamodb: DynamoDB, failure: Any, code: str
) -> None:
    dynamodb.failures += [failure] * 4
    with pytest.raises(ClientError) as caught:
        own.put_item(Item=ROW)
    assert caught.value.response["Error"]["Code"] == code
    assert len(dynamodb.requests) == 4


def test_a_call_ends_within_the_29_seconds_of_an_integration(
    own: Table, dynamodb: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("random.uniform", lambda _low, high: high)
    dynamodb.failures += [(500, {})] * 4
    with pytest.raises(ClientError):
        own.put_item(Item=ROW)
    attempt = 2 * module.CONNECT_SECONDS + module.ANSWER_SECONDS  # TCP, TLS, answer
    assert len(pauses) == 3
    assert 4 * attempt + sum(pauses) < 29


def test_without_an_answer_the_error_names_the_address(own: Table, dynamodb: DynamoDB) -> None:
    dynamodb.failures += [drop] * 4
    with pytest.raises(EndpointConnectionError, match=dynamodb.url):
        own.put_item(Item=ROW)


def test_a_refusal_is_not_retried(own: Table, dynamodb: DynamoDB) -> None:
    dynamodb.failures += [(400, {"__type": "x#ValidationException", "message": "Wrong."})]
    with pytest.raises(ClientError, match=r"ValidationException.*PutItem.*Wrong\."):
        own.put_item(Item=ROW)
    assert len(dynamodb.requests) == 1


def test_a_retried_transaction_keeps_its_token(own: Table, dynamodb: DynamoDB) -> None:
    put = {"Put": {"TableName": own.name, "Item": ROW}}
    dynamodb.failures += [drop]
    for _ in range(2):
        own.meta.client.transact_write_items(TransactItems=[put])
    first, again, other = (request["ClientRequestToken"] for request in dynamodb.requests)
    assert first == again != other


def test_a_transaction_says_which_condition_failed(own: Table) -> None:
    own.put_item(Item=ROW)
    put = {
        "Put": {
            "TableName": own.name,
            "Item": KEY,
            "ConditionExpression": "attribute_not_exists(PK)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }
    cancelled = own.meta.client.exceptions.TransactionCanceledException
    with pytest.raises(cancelled) as caught:
        own.meta.client.transact_write_items(TransactItems=[put])
    (reason,) = caught.value.response["CancellationReasons"]
    assert reason["Code"] == "ConditionalCheckFailed"
    assert reason["Item"]["expires_at"] == {"N": "5"}


def test_a_closed_rooms_count_is_refused_as_by_boto3(own: Table) -> None:
    Rooms(own, lambda: 0).count_out("tea")  # raises nothing


# Connections


def test_only_a_server_of_a_trusted_authority_gets_a_request(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = pytest.importorskip("trustme").CA()  # not required for plain `pytest`
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("TABLE", table.name)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with DynamoDB(tls) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", server.url)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        with pytest.raises(EndpointConnectionError):
            open_table().put_item(Item=ROW)
        assert server.requests == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
        own = open_table()
        own.put_item(Item=ROW)
        assert query(own)["Items"] == [ROW]


def test_one_connection_is_kept(own: Table, dynamodb: DynamoDB) -> None:
    for _ in range(3):
        query(own)
    assert dynamodb.connections == 1


def test_a_connection_that_was_idle_for_long_is_not_reused(
    own: Table, dynamodb: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    query(own)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0)
    query(own)
    assert dynamodb.connections == 2
