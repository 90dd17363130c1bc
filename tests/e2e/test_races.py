"""Real races: many threads over an atomic DynamoDB, then a check of the whole table.

Over the emulator's DynamoDB, or over AWS's DynamoDB Local if AWS_ENDPOINT_URL_DYNAMODB names it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import boto3
import pytest
from botocore.config import Config

from emulator.emulator import REGION
from tests.conftest import Chat, Person, requests
from tests.connections import Connections
from tests.e2e.conftest import Cloud
from tests.invariants import problems
from tests.tables import create_table, rows

ROUNDS = 15
ELSEWHERE = os.environ.get("AWS_ENDPOINT_URL_DYNAMODB")  # read before the tests clear it


@pytest.fixture(scope="module")
def atomic_table(cloud: Cloud) -> Iterator[Any]:
    dynamodb = boto3.resource(
        "dynamodb",
        region_name=REGION,
        endpoint_url=ELSEWHERE or cloud.emulator.environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=cloud.emulator.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=cloud.emulator.environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(max_pool_connections=32),
    )
    table = create_table(dynamodb, "Races")
    yield table
    table.delete()


class AtomicChat(Chat):
    def rows(self) -> list[dict[str, Any]]:
        return rows(self.table)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        with self.table.batch_writer() as batch:
            for row in rows:
                batch.put_item(Item=row)


@pytest.fixture
def chat(
    atomic_table: Any, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Chat]:
    """A chat over that table, which is cleared afterwards."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")  # `connections` checks none
    chat = AtomicChat(atomic_table, connections)
    yield chat
    for row in chat.rows():
        atomic_table.delete_item(Key={"PK": row["PK"], "SK": row["SK"]})


def at_once(*acts: Callable[[], Any]) -> None:
    """Run all of them, each in its own thread, starting at the same moment."""
    start = Barrier(len(acts))

    def when_all_are_ready(act: Callable[[], Any]) -> None:
        start.wait()
        act()

    with ThreadPoolExecutor(len(acts)) as threads:
        for done in [threads.submit(when_all_are_ready, act) for act in acts]:
            done.result()


def saying(person: Person, *frames: str) -> Callable[[], None]:
    def says_all() -> None:
        for frame in frames:
            person.says(frame)

    return says_all


def all_is_well(chat: Chat) -> None:
    assert problems(chat.rows(), chat.clock.now) == []


def record(person: Person) -> dict[str, str]:
    return person.chat.storage.get_record_by_connection(person.id)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_two_first_frames_at_once(chat: Chat, _round: int) -> None:
    somebody = chat.somebody()
    at_once(saying(somebody, "John"), saying(somebody, "Jenny"))
    answers = sorted(chat.connections.received(somebody.id))
    name = record(somebody)["username"]
    welcome = f"Using nickname: {name}\nType /help for list of commands."
    assert answers == ["Cannot send message if not in chatroom.", welcome]
    all_is_well(chat)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_many_want_the_same_nickname(chat: Chat, _round: int) -> None:
    people = [chat.somebody() for _ in range(8)]
    at_once(
        *(saying(person, name) for person, name in zip(people, ["John", "JOHN"] * 4, strict=True))
    )
    names = [record(person)["username"] for person in people]
    assert sorted(map(len, names)) == [0] * 7 + [4]
    all_is_well(chat)


def connecting(chat: Chat, account: str, nickname: str) -> Callable[[], Person]:
    return lambda: chat.signs_in(account, nickname)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_an_account_connects_several_times_at_once(chat: Chat, _round: int) -> None:
    """Whatever its nickname is by then, it ends with one connection."""
    older = chat.signs_in("a", "John", "tea")
    jenny = chat.person("Jenny", "tea")
    names = ["John", "Jack", "John", "JOHN"]
    at_once(*(connecting(chat, "a", name) for name in names))
    (open_one,) = (row for row in chat.rows() if "account" in row)
    assert open_one["SK"].removeprefix("username_") in names
    assert record(older) == {}
    assert chat.connections.received(older.id) == ["You have connected from elsewhere."]
    assert chat.connections.received(jenny.id) == ["John left room."]
    assert len(chat.connections.closed) == len(names)
    all_is_well(chat)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_an_account_connects_while_its_older_connection_acts(chat: Chat, _round: int) -> None:
    older = chat.signs_in("a", "John", "tea")
    at_once(
        saying(older, "/join chalice", "/quit", "/join lounge"),
        connecting(chat, "a", "John"),
        connecting(chat, "a", "John"),
        older.disconnects,
    )
    assert len([row for row in chat.rows() if "account" in row]) == 1
    assert record(older) == {}
    all_is_well(chat)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_nobody_who_is_replaced_is_told_to_reconnect(chat: Chat, _round: int) -> None:
    older = chat.signs_in("a", "John", "tea")
    frames = ["/room"] * 5
    at_once(saying(older, *frames), connecting(chat, "a", "John"), connecting(chat, "a", "John"))
    heard = set(chat.connections.received(older.id))
    assert "You have connected from elsewhere." in heard
    assert heard <= {"tea", "You have connected from elsewhere."}


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_accounts_with_one_nickname_connect_at_once(chat: Chat, _round: int) -> None:
    refused: list[bool] = []
    at_once(*(lambda n=n: refused.append(chat.refuses(f"a{n}", "John")) for n in range(6)))
    assert sorted(refused) == [False] + [True] * 5
    all_is_well(chat)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_two_joins_a_rename_and_a_quit_of_one_connection(chat: Chat, _round: int) -> None:
    person = chat.person("John", "tea")
    frames = ["/join chalice", "/join lounge", "/nick Jack", "/quit"]
    at_once(*(saying(person, frame) for frame in frames))
    assert record(person)["username"] == "Jack"
    all_is_well(chat)


def test_a_hundred_frames_of_one_connection_at_once(
    chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    """Each finds a function of its own. The sender is told of those that never had their turn."""
    person = chat.person("John")
    with requests(chat.storage) as sent:
        at_once(*(saying(person, f"/join room{n}") for n in range(100)))
    heard = chat.connections.received(person.id)
    joined = sum(line.startswith("Joined chat room") for line in heard)
    told = heard.count("You are sending too fast. Wait a moment.")
    assert joined + told == 100
    assert sent.total() < 2_500
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    all_is_well(chat)


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_a_connection_dies_while_it_speaks(chat: Chat, _round: int) -> None:
    person = chat.person("John", "tea")
    at_once(saying(person, "/join chalice"), saying(person, "/nick Jack"), person.disconnects)
    assert chat.rows() == []


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_two_swap_their_names(chat: Chat, _round: int) -> None:
    john, jenny = chat.person("John"), chat.person("Jenny")
    at_once(
        saying(john, "/nick x", "/nick Jenny", "/nick John"),
        saying(jenny, "/nick John", "/nick Jenny"),
    )
    all_is_well(chat)


@pytest.mark.parametrize("_round", range(3))
def test_many_enter_and_leave_one_room(chat: Chat, _round: int) -> None:
    people = [chat.person(f"p{n}") for n in range(12)]
    at_once(*(saying(person, "/join tea", "/quit", "/join tea") for person in people))
    assert len(chat.storage.get_connection_ids_by_room("tea")) == 12
    all_is_well(chat)
    at_once(*(person.disconnects for person in people))
    assert chat.rows() == []


def test_a_departure_is_announced_once_however_many_notice_it(chat: Chat) -> None:
    people = [chat.person(f"p{n}", "tea") for n in range(6)]
    people[0].vanishes()
    chat.connections.posts.clear()
    at_once(people[0].disconnects, *(saying(person, "Hi") for person in people[1:]))
    for person in people[1:]:
        assert chat.connections.received(person.id).count("p0 left room.") == 1
    all_is_well(chat)


@pytest.mark.parametrize("_round", range(3))
def test_many_departures_are_announced_once_however_many_notice_them(
    chat: Chat, _round: int
) -> None:
    people = [chat.person(f"guest{n}", "tea") for n in range(6)]
    chat.has_members("tea", 70)
    chat.connections.gone |= {f"c{n}" for n in range(70)}
    chat.connections.posts.clear()
    at_once(*(saying(person, "Hi") for person in people))
    for person in people:
        lines = "\n".join(chat.connections.received(person.id)).split("\n")
        departures = sorted(line for line in lines if line.endswith("left room."))
        assert departures == sorted(f"p{n} left room." for n in range(70))
    all_is_well(chat)


@pytest.mark.parametrize("seed", range(4))
def test_everything_at_once(chat: Chat, seed: int) -> None:
    people = [chat.somebody() for _ in range(6)]
    frames = [
        *("John", "Jenny", "Hi"),
        *("/nick John", "/nick Jenny", "/nick JOHN", "/nick Zoe"),
        *("/join tea", "/join chalice", "/join lounge", "/quit", "/ls"),
    ]

    def chatter(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        for _ in range(25):
            person = chance.choice(people)
            if chance.random() < 0.03:
                person.disconnects()
            else:
                person.says(chance.choice(frames))

    at_once(*(lambda number=number: chatter(number) for number in range(8)))
    said = [line for lines in chat.connections.posts.values() for line in lines]
    assert "Something went wrong. Please try again." not in said
    all_is_well(chat)
