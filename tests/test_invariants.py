"""The table checker, on tables that are broken in every way it should find."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.invariants import problems

NOW = 1_000
Table = dict[tuple[str, str], dict[str, Any]]


def good() -> Table:
    """John and Jenny in a room, Zoe outside, somebody without a name, and expired rows."""
    return {
        ("c1", "username_John"): {"room": "tea"},
        ("c1", "room_tea"): {"username": "John"},
        ("c2", "username_Jenny"): {"room": "tea"},
        ("c2", "room_tea"): {"username": "Jenny"},
        ("c3", "username_Zoe"): {"account": "z"},
        ("c4", "username_"): {},
        ("c5", "username_Old"): {"room": "den", "expires_at": NOW},
        ("rooms", "open_tea"): {"members": 2},
        ("rooms", "open_den"): {"members": 7, "expires_at": NOW},
        ("usernames", "taken_john"): {"connection_id": "c1"},
        ("usernames", "taken_jenny"): {"connection_id": "c2"},
        ("usernames", "taken_zoe"): {"connection_id": "c3"},
        ("accounts", "account_z"): {"connection_id": "c3"},
        ("accounts", "account_j"): {"connection_id": "closed"},
    }


def found(table: Table) -> list[str]:
    rows = [{"PK": pk, "SK": sk, "expires_at": NOW + 1, **row} for (pk, sk), row in table.items()]
    return problems(rows, NOW)


def test_a_good_table_has_no_problems() -> None:
    assert found(good()) == []


@pytest.mark.parametrize(
    "breaks",
    [
        lambda t: t.update({("c1", "username_Jack"): {"room": "tea"}}),
        lambda t: t.update({("c1", "room_den"): {"username": "John"}}),
        lambda t: t.pop(("c1", "username_John")),
        lambda t: t.pop(("accounts", "account_z")),
        lambda t: t[("c1", "username_John")].update(account="z"),
        lambda t: t.pop(("c1", "room_tea")),
        lambda t: t[("c1", "room_tea")].update(username="Jack"),
        lambda t: t[("c1", "username_John")].pop("room"),
        lambda t: t[("c1", "username_John")].update(room="den"),
        lambda t: t.pop(("usernames", "taken_john")),
        lambda t: t[("usernames", "taken_john")].update(connection_id="c2"),
        lambda t: t.update({("usernames", "taken_jack"): {"connection_id": "c1"}}),
        lambda t: t.update({("usernames", "taken_"): {"connection_id": "c4"}}),
        lambda t: t.pop(("rooms", "open_tea")),
        lambda t: t[("rooms", "open_tea")].update(members=1),
        lambda t: t[("rooms", "open_tea")].update(members=3),
        lambda t: t.update({("rooms", "open_den"): {"members": 1}}),
        lambda t: t.update({("rooms", "open_den"): {"members": 0}}),
        lambda t: t.update({("c9", "room_tea"): {"username": "Ghost"}}),
    ],
)
def test_a_broken_table_has_problems(breaks: Callable[[Table], Any]) -> None:
    table = good()
    breaks(table)
    assert found(table) != []


def test_counts_that_are_too_high_can_be_allowed_but_not_too_low() -> None:
    table = good()
    rows = [{"PK": pk, "SK": sk, "expires_at": NOW + 1, **row} for (pk, sk), row in table.items()]
    (row,) = (row for row in rows if row["SK"] == "open_tea")
    row["members"] = 3
    assert problems(rows, NOW, high_counts=True) == []
    row["members"] = 1
    assert problems(rows, NOW, high_counts=True) != []
