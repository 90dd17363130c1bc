"""The table as `resources.json` describes it, and its rows."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESOURCES = Path(__file__).parent.parent / "resources.json"


def create_table(dynamodb: Any, name: str = "ChaliceChat") -> Any:
    resources = json.loads(RESOURCES.read_text())["Resources"]
    properties = resources["ChaliceChatTable"]["Properties"]
    return dynamodb.create_table(
        TableName=name,
        BillingMode=properties["BillingMode"],
        AttributeDefinitions=properties["AttributeDefinitions"],
        KeySchema=properties["KeySchema"],
        GlobalSecondaryIndexes=properties["GlobalSecondaryIndexes"],
    )


def rows(table: Any) -> list[dict[str, Any]]:
    """All rows, with a consistent read."""
    page = table.scan(ConsistentRead=True)
    found: list[dict[str, Any]] = page["Items"]
    while "LastEvaluatedKey" in page:
        page = table.scan(ConsistentRead=True, ExclusiveStartKey=page["LastEvaluatedKey"])
        found += page["Items"]
    return found


def write(table: Any, rows: Iterable[dict[str, Any]]) -> None:
    with table.batch_writer() as batch:
        for row in rows:
            batch.put_item(Item=row)


def clear(table: Any) -> None:
    with table.batch_writer() as batch:
        for row in rows(table):
            batch.delete_item(Key={"PK": row["PK"], "SK": row["SK"]})
