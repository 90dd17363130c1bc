"""The chat over moto's DynamoDB and a local `@connections` API, and people who use it."""

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from typing import Any

import boto3
import pytest
from chalice import Chalice
from moto import mock_aws

from chalicelib import Handler, Sender, Session, Storage
from tests.connections import Connections
from tests.tables import create_table, rows

# Plain `pytest` runs what it can with the packages of the field; `make test` runs it all.
collect_ignore: list[str] = []
if "CHALICECHAT_ALL_TESTS" not in os.environ:
    collect_ignore.append("e2e")
    if not find_spec("hypothesis"):
        collect_ignore += ["test_any_text.py", "test_model.py"]
    if not find_spec("cfnlint"):
        collect_ignore.append("test_template.py")


class Clock:
    """Time as the tests set it. It also moves on a little at every look."""

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
        """Exactly these, in this order, since the last time."""
        assert self.chat.connections.received(self.id) == list(lines)

    def hears_nothing(self) -> None:
        self.hears()

    def disconnects(self) -> None:
        self.cuts_off()
        self.chat.sender.depart(self.id)

    def cuts_off(self) -> None:
        """Gone, and nobody noticed yet."""
        self.chat.connections.gone.add(self.id)


class Chat:
    """The server's parts, wired as in `app.py`."""

    def __init__(self, table: Any, connections: Connections) -> None:
        self.app = Chalice("test")
        self.app.websocket_api.session = Session()
        self.app.websocket_api.configure("test.execute-api.us-east-1.amazonaws.com", "api")
        self.table = table
        self.connections = connections
        self.clock = Clock()
        self.storage = Storage(table, clock=self.clock)
        self.sender = Sender(self.app, self.storage)
        self.handler = Handler(self.storage, self.sender)
        self._ids = count(1)

    def somebody(self) -> Person:
        """Connected, without a nickname yet."""
        person = Person(self, f"connection-{next(self._ids)}=")
        self.storage.create_connection(person.id)
        return person

    def person(self, name: str, room: str | None = None) -> Person:
        """Connected under a name, and in a room if one is given."""
        person = self.somebody()
        person.says(name)
        if room is not None:
            person.says(f"/join {room}")
        self.connections.posts.clear()
        return person

    def rows(self) -> list[dict[str, Any]]:
        return rows(self.table)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS, as moto plays it; nothing of the user's own configuration is in sight."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with mock_aws():
        yield


@pytest.fixture
def table(aws: None) -> Any:
    return create_table(boto3.resource("dynamodb"))


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
