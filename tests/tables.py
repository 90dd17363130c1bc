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


def reset(table: Any, rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Replace the rows of the table; writes only those that differ."""
    before = {(row["PK"], row["SK"]): row for row in rows}
    after = {(row["PK"], row["SK"]): row for row in wanted}
    with table.batch_writer() as batch:
        for partition, sort_key in before.keys() - after.keys():
            batch.delete_item(Key={"PK": partition, "SK": sort_key})
        for key, row in after.items():
            if before.get(key) != row:
                batch.put_item(Item=row)
