"""The chat over moto's DynamoDB and a local `@connections` API, and people who use it."""

import copy
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import count
from typing import Any

import boto3
import pytest
from chalice import Chalice
from moto import mock_aws
from moto.dynamodb import models

from chalicelib import Handler, Sender, Storage
from chalicelib.rows import LIFETIME_SECONDS, Connection, directory_key
from tests.connections import Connections
from tests.tables import clear, create_table, rows

# Plain `pytest` runs the tests whose packages are installed, and none that is marked `e2e`.
collect_ignore: list[str] = []
if not find_spec("hypothesis"):
    collect_ignore += ["test_any_text.py", "test_model.py"]
if not find_spec("cfnlint"):
    collect_ignore.append("test_template.py")


class Clock:
    """A clock that the tests set. It also advances a little at every reading."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        self.now += 0.000_01
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Person:
    """Somebody with an open connection."""

    def __init__(self, chat: "Chat", connection_id: str) -> None:
        self.chat = chat
        self.id = connection_id

    def says(self, text: str) -> None:
        self.chat.handler.handle(self.id, text)

    def hears(self, *lines: str) -> None:
        """Exactly these lines, in this order, since the last check."""
        assert self.chat.connections.received(self.id) == list(lines)

    def hears_nothing(self) -> None:
        self.hears()

    def disconnects(self) -> None:
        self.vanishes()
        self.chat.handler.disconnect(self.id)

    def vanishes(self) -> None:
        """The connection is gone, and nobody has noticed yet."""
        self.chat.connections.gone.add(self.id)


class Chat:
    """The server's parts, wired as in `app.py`."""

    def __init__(self, table: Any, connections: Connections) -> None:
        self.app = Chalice("test")
        self.app.websocket_api.session = boto3_session()
        self.table = table
        self.connections = connections
        self.clock = Clock()
        self.storage = Storage(table, clock=self.clock)
        self.sender = Sender(self.app, self.storage)
        self.handler = Handler(self.storage, self.sender)
        self._ids = count(1)

    def somebody(self) -> Person:
        """A new person, without a nickname yet."""
        person = Person(self, f"connection-{next(self._ids)}=")
        self.handler.connect(person.id)
        return person

    def person(self, name: str, room: str | None = None) -> Person:
        """A new person with a nickname, and in a room if one is given."""
        person = self.somebody()
        person.says(name)
        if room is not None:
            person.says(f"/join {room}")
        self.connections.posts.clear()
        return person

    def has_members(self, room: str, members: int, counted: int | None = None) -> None:
        """Write people c0, c1, ... called p0, p1, ... straight into the table, for speed.

        `counted` is the room's count, if others are there too.
        """
        expires_at = int(self.clock()) + LIFETIME_SECONDS
        with self.table.batch_writer() as batch:
            for n in range(members):
                person = Connection(f"c{n}", f"p{n}", room, expires_at)
                for row in (person.row, person.member_row(joined_at=n), person.claim_row):
                    batch.put_item(Item=row)
            count = {"members": counted or members, "expires_at": expires_at}
            batch.put_item(Item={**directory_key(room), **count})

    def rows(self) -> list[dict[str, Any]]:
        return rows(self.table)


@contextmanager
def requests(storage: Storage) -> Iterator[Counter[str]]:
    """Counts the requests to DynamoDB inside the block, by operation."""
    sent: Counter[str] = Counter()

    def count(model: Any, **_: Any) -> None:
        sent[model.name] += 1

    events = storage._client.meta.events
    events.register("before-call.dynamodb", count)
    try:
        yield sent
    finally:
        events.unregister("before-call.dynamodb", count)


class Crash(BaseException):
    """The function is gone: nothing after this runs, and nothing catches it."""


@contextmanager
def at_request(
    chat: Chat, number: int, moment: str, act: Callable[[], None]
) -> Iterator[list[int]]:
    """Do this at one request to DynamoDB, before or after it was carried out."""
    seen = [0]

    def hook(model: Any, **_: Any) -> None:
        seen[0] += 1
        if seen[0] == number:
            act()

    events = chat.storage._client.meta.events
    events.register(f"{moment}.dynamodb", hook)
    try:
        yield seen
    finally:
        events.unregister(f"{moment}.dynamodb", hook)


def crash() -> None:
    raise Crash


class CopiesTablesOnce:
    """Replaces `copy` for moto's transactions, which copy the whole table for each action.

    They roll back to the first copy; the others only take time.
    """

    def deepcopy(self, thing: Any) -> Any:
        caller = sys._getframe(1)
        if caller.f_code.co_name != "transact_write_items":
            return copy.deepcopy(thing)
        copies: dict[str, Any] = caller.f_locals["original_table_state"]
        return copies.get(thing.name) or copy.deepcopy(thing)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS as mocked by moto; the user's own configuration is hidden."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setattr(models, "copy", CopiesTablesOnce())
    mock = mock_aws()
    mock.start(reset=False)
    yield
    mock.stop(remove_data=False)


@cache
def moto_table() -> Any:
    """One table for all tests: creating it takes longer than most of them."""
    return create_table(boto3.resource("dynamodb"))


@cache
def boto3_session() -> boto3.Session:
    return boto3.Session()


@pytest.fixture
def table(aws: None) -> Iterator[Any]:
    yield moto_table()
    clear(moto_table())


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with Connections() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", server.url)
        yield server


@pytest.fixture
def chat(table: Any, connections: Connections) -> Chat:
    return Chat(table, connections)


@pytest.fixture
def storage(chat: Chat) -> Storage:
    return chat.storage


@pytest.fixture
def john(chat: Chat) -> Person:
    return chat.person("John", "chalice")


@pytest.fixture
def jenny(john: Person, chat: Chat) -> Person:
    return chat.person("Jenny", "chalice")
