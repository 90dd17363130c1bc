"""What `make people` lists and whom `make kick` disconnects; over AWS's emulator: e2e/."""

from __future__ import annotations

import io
import sys
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from chalicelib.storage import Connection
from chalicelib.storage.rows import LIFETIME_SECONDS
from scripts import Failure, people
from tests.conftest import Chat, Person, requests

NOON = 1_750_075_200  # in UTC
GONE = (
    "The chat notices at the next line in the room, when somebody wants the nickname, or 2 hours "
    "after the connect."
)


@cache
def boto3_session() -> Any:
    """One for all tests, since the first client of a session takes a tenth of a second."""
    return boto3.Session()


class Operator:
    """Somebody who may read the table and close connections."""

    def __init__(self, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
        self._table = chat.table
        self._api = boto3_session().client("apigatewaymanagementapi")
        self._capsys = capsys

    def kicks(self, **whom: str) -> None:
        people.kick(self._table, self._api, **whom)

    def lists(self) -> list[tuple[str, str | None]]:
        return [(each.nickname, each.room) for each in people.connected(self._table)]

    def reads(self, *lines: str) -> None:
        """Exactly these lines, since the last check."""
        assert self._capsys.readouterr().out.splitlines() == list(lines)


@pytest.fixture
def operator(chat: Chat, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(chat, capsys)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


# Listing


def test_everybody_is_listed_by_room_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    people.show(
        [
            Connection("c1", "John", "chalice", NOON + LIFETIME_SECONDS),
            Connection("c2", "Jenny", "chalice", NOON + 61 + LIFETIME_SECONDS),
            Connection("c3", "Jack", "tea", NOON - 1 + LIFETIME_SECONDS),
            Connection("c4", "", None, NOON + LIFETIME_SECONDS),
            Connection("c5", "Of the tutorial", None),
        ]
    )
    assert capsys.readouterr().out == (
        "since (UTC)  room       nickname\n"
        "12:00:00     chalice    John\n"
        "12:01:01     chalice    Jenny\n"
        "11:59:59     tea        Jack\n"
        "12:00:00     (no room)  (no nickname)\n"
        "?            (no room)  Of the tutorial\n"
        "\n"
        "people  room\n"
        "     2  chalice\n"
        "     1  tea\n"
        "     2  (no room)\n"
        "     5  in all\n"
    )


def test_an_empty_chat_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    people.show([])
    assert capsys.readouterr().out == "Nobody is connected.\n"


def test_every_open_connection_is_listed_once(
    chat: Chat, john: Person, jenny: Person, operator: Operator
) -> None:
    chat.somebody()
    chat.person("username_x", "username_y")
    chat.signs_in("an account", "Jack")
    jenny.disconnects()
    assert operator.lists() == [
        ("John", "chalice"),
        ("username_x", "username_y"),
        ("", None),
        ("Jack", None),
    ]


def test_what_has_expired_is_not_listed(chat: Chat, operator: Operator) -> None:
    now = int(chat.clock())
    chat.write(
        Connection("c1", name, "tea", now + left).row for name, left in [("a", -1), ("b", 60)]
    )
    assert operator.lists() == [("b", "tea")]


def test_the_time_is_that_of_the_connect(
    chat: Chat, john: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = people.connected(chat.table)
    assert abs(found.expires_at - LIFETIME_SECONDS - chat.clock()) < 60


def test_thousands_are_read_page_by_page(chat: Chat, operator: Operator) -> None:
    """Each row has 3 KB, so that a page (1 MB) holds about 350."""
    expires_at = int(chat.clock()) + 60
    chat.write(
        Connection(f"c{n}", f"p{n}", "tea", expires_at).row | {"ballast": "x" * 3_000}
        for n in range(700)
    )
    with requests(chat.storage) as sent:
        assert len(operator.lists()) == 700
    assert 3 <= sent["Scan"] <= 4


# One person


@pytest.mark.parametrize("nickname", ["Ill-Jo", "ill-jo", " i11-J0 ", "\u200dIll-Jo"])
def test_a_nickname_is_found_as_the_chat_finds_it(
    chat: Chat, john: Person, operator: Operator, nickname: str
) -> None:
    """In any spelling that counts as the same."""
    person = chat.person("Ill-Jo", "chalice")
    with requests(chat.storage) as sent:
        operator.kicks(nickname=nickname)
    assert sent == {"GetItem": 1, "Query": 1}
    assert chat.connections.closed == {person.id}
    operator.reads("Disconnected: Ill-Jo")


@pytest.mark.parametrize(
    "nickname", ["Jack", "Johnny", "/help", "Usage", "x" * 5_000, "a:b", "\udcff"]
)
def test_nobody_of_that_name(chat: Chat, john: Person, operator: Operator, nickname: str) -> None:
    with pytest.raises(Failure, match=r"^Nobody is called .*; `make people` lists everybody.$"):
        operator.kicks(nickname=nickname)
    assert chat.connections.closed == set()


def test_nobody_has_a_name_whose_holder_has_expired(
    chat: Chat, john: Person, operator: Operator
) -> None:
    chat.write(
        row | {"expires_at": int(chat.clock()) - 1} for row in chat.rows() if row["PK"] != "rooms"
    )
    with pytest.raises(Failure, match=r"^Nobody is called John"):
        operator.kicks(nickname="John")


def test_a_connection_that_is_gone_already_is_left_to_the_chat(
    chat: Chat, john: Person, jenny: Person, operator: Operator
) -> None:
    """Its rows stay as they are: the chat removes them, and announces the departure."""
    john.vanishes()
    before = chat.rows()
    operator.kicks(nickname="John")
    operator.reads(f"Gone already: John. {GONE}")
    assert chat.rows() == before
    jenny.says("Hi")
    jenny.hears("Jenny: Hi", "John left room.")
    assert operator.lists() == [("Jenny", "chalice")]


def test_a_throttled_request_is_retried(chat: Chat, john: Person, operator: Operator) -> None:
    before = chat.connections.attempts[john.id]
    chat.connections.will_answer(john.id, 429)
    operator.kicks(nickname="John")
    assert chat.connections.closed == {john.id}
    assert chat.connections.attempts[john.id] == before + 2


def test_a_refusal_is_an_error(chat: Chat, john: Person, operator: Operator) -> None:
    chat.connections.will_answer(john.id, 403)
    with pytest.raises(ClientError) as refused:
        operator.kicks(nickname="John")
    assert "and execute-api:ManageConnections on the API." in people.explained(refused.value)


# A room, everybody


def test_a_room_is_emptied_after_a_question(
    chat: Chat, john: Person, jenny: Person, operator: Operator, answer: Any
) -> None:
    chat.person("Jack", "tea")
    chat.person("Jill")
    john.vanishes()
    answer("y\n")
    operator.kicks(room="chalice")
    operator.reads(
        "Disconnect everybody in chalice (2)? [y/N] Disconnected: 1",
        f"Gone already: 1. {GONE}",
    )
    assert chat.connections.closed == {jenny.id}


def test_everybody_is_disconnected_after_a_question(
    chat: Chat, john: Person, jenny: Person, operator: Operator, answer: Any
) -> None:
    others = [chat.person("Jack", "tea"), chat.person("Jill"), chat.somebody()]
    answer("Yes")
    operator.kicks(everybody="yes")
    operator.reads("Disconnect everybody (5)? [y/N] Disconnected: 5")
    assert chat.connections.closed == {each.id for each in (john, jenny, *others)}


@pytest.mark.parametrize("said", ["n\n", "\n", "", "yy\n", "John\n"])
@pytest.mark.parametrize("whom", [{"room": "chalice"}, {"everybody": "yes"}])
def test_without_a_yes_nobody_is_disconnected(
    chat: Chat, john: Person, operator: Operator, answer: Any, said: str, whom: dict[str, str]
) -> None:
    answer(said)
    with pytest.raises(Failure, match=r"^Nobody was disconnected, since the answer was not y.$"):
        operator.kicks(**whom)
    assert chat.connections.closed == set()


@pytest.mark.parametrize(
    ("whom", "said"),
    [
        ({"room": "tea"}, "Nobody is in tea; `make people` lists everybody."),
        ({"room": "Chalice"}, "Nobody is in Chalice; `make people` lists everybody."),
        ({"room": "x" * 5_000}, f"Nobody is in {'x' * 5_000}; `make people` lists everybody."),
    ],
)
def test_nobody_is_in_that_room(
    john: Person, operator: Operator, whom: dict[str, str], said: str
) -> None:
    with pytest.raises(Failure) as failure:
        operator.kicks(**whom)
    assert str(failure.value) == said


def test_nobody_is_there(operator: Operator) -> None:
    with pytest.raises(Failure, match=r"^Nobody is connected; "):
        operator.kicks(everybody="yes")


def test_a_large_room_is_emptied_some_at_a_time(
    chat: Chat, operator: Operator, answer: Any
) -> None:
    """A new account runs 10 functions at once, one for each departure, and loses the others."""
    chat.has_members("tea", 300)
    answer("y")
    operator.kicks(room="tea")
    assert chat.connections.closed == {f"c{n}" for n in range(300)}
    assert 1 < chat.connections.most_open <= 8


@pytest.mark.parametrize(
    "whom",
    [
        {},
        {"nickname": "", "room": ""},
        {"nickname": "John", "room": "chalice"},
        {"room": "chalice", "everybody": "yes"},
        {"everybody": "no"},
        {"everybody": "y"},
    ],
)
def test_without_one_choice_nobody_is_disconnected(
    chat: Chat, john: Person, operator: Operator, whom: dict[str, str]
) -> None:
    with pytest.raises(Failure, match=r"^Disconnect whom\? Name one: "):
        operator.kicks(**whom)
    assert chat.connections.closed == set()
