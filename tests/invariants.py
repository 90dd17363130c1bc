"""The invariants of the table."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from chalicelib.text import names


def problems(rows: list[dict[str, Any]], now: float, *, high_counts: bool = False) -> list[str]:
    """The broken invariants of a table that is at rest, one a line.

    A connection has one nickname, whose one claim is its own, and at most one room, on which the
    member's row and its own row agree. An account has one connection. The directory lists exactly
    the rooms with members, and counts them. No row is orphaned. With `high_counts`, as after a
    crash, the directory may count too many, and list a room that has no members.
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
