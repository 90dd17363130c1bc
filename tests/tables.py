"""The table as `resources.json` describes it, its rows, and their invariants."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chalicelib import names

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


def reset(table: Any, wanted: list[dict[str, Any]]) -> None:
    """Make these the rows of the table; writes only those that differ."""
    before = {(row["PK"], row["SK"]): row for row in rows(table)}
    after = {(row["PK"], row["SK"]): row for row in wanted}
    with table.batch_writer() as batch:
        for partition, sort_key in before.keys() - after.keys():
            batch.delete_item(Key={"PK": partition, "SK": sort_key})
        for key, row in after.items():
            if before.get(key) != row:
                batch.put_item(Item=row)


def problems(rows: list[dict[str, Any]], now: float, *, high_counts: bool = False) -> list[str]:
    """The broken invariants of a table that is at rest, one a line.

    A connection has one nickname, whose one claim is its own, and at most one room, on which the
    member's row and its own row agree. An account has one connection. The directory lists exactly
    the rooms with members, and counts them. No row is orphaned. With `high_counts`, as after a crash, the directory may count
    too many, and list a room that has no members.
    """
    alive = [row for row in rows if row["expires_at"] > now]
    connections = _by_kind(alive, "username_")
    members = _by_kind(alive, "room_")
    claims = {row["SK"]: row["connection_id"] for row in alive if row["PK"] == "usernames"}
    accounts = {row["SK"]: row["connection_id"] for row in alive if row["PK"] == "accounts"}
    counts = {row["SK"]: int(row["members"]) for row in alive if row["PK"] == "rooms"}
    expected = _expected_counts(members)
    if high_counts:
        counts = {room: min(count, expected[room]) for room, count in counts.items()}
        counts = {room: count for room, count in counts.items() if count or expected[room]}
    return [
        *_several(connections, "nicknames"),
        *_several(members, "rooms"),
        *_disagreements(connections, members),
        *_strays(connections, accounts),
        *_differences("claim", _expected_claims(connections), claims),
        *_differences("count", expected, counts),
    ]


Rows = dict[str, list[dict[str, Any]]]


def _by_kind(rows: list[dict[str, Any]], prefix: str) -> Rows:
    found: Rows = {}
    for row in rows:
        if row["PK"] not in ("rooms", "usernames") and row["SK"].startswith(prefix):
            found.setdefault(row["PK"], []).append(row)
    return found


def _several(rows: Rows, what: str) -> list[str]:
    return [f"{id} has {len(several)} {what}" for id, several in rows.items() if len(several) > 1]


def _disagreements(connections: Rows, members: Rows) -> list[str]:
    """Names and rooms on which a connection's row and its member's row disagree."""
    said = {
        (id, _suffix(row), row["room"]) for id, (row, *_) in connections.items() if "room" in row
    }
    shown = {(id, row["username"], _suffix(row)) for id, (row, *_) in members.items()}
    return [f"only in one row: {difference}" for difference in sorted(said ^ shown)]


def _strays(connections: Rows, accounts: Mapping[str, str]) -> list[str]:
    """Connections of an account other than its last one."""
    return [
        f"{id} is not the last connection of {row['account']}"
        for id, (row, *_) in connections.items()
        if "account" in row and accounts.get(f"account_{row['account']}") != id
    ]


def _expected_claims(connections: Rows) -> dict[str, str]:
    named = {id: _suffix(row) for id, (row, *_) in connections.items() if _suffix(row)}
    return {f"taken_{names.claim(name)}": id for id, name in named.items()}


def _expected_counts(members: Rows) -> Counter[str]:
    return Counter(f"open_{_suffix(row)}" for several in members.values() for row in several)


def _differences(what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{what} of {key}: {found.get(key)}, but should be {expected.get(key)}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]


def _suffix(row: dict[str, Any]) -> str:
    return str(row["SK"].split("_", 1)[1])
