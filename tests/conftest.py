"""The chat over moto's DynamoDB and a local `@connections` API, and people who use it."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
from chalicelib.pace import Pace
from chalicelib.rows import LIFETIME_SECONDS, Account, Connection, directory_key
from tests import moto_table
from tests.connections import Connections

# Plain `pytest` runs the tests whose packages are installed, and none that is marked `e2e`.
collect_ignore: list[str] = []
if not find_spec("hypothesis"):
    collect_ignore += ["test_any_text.py", "test_model.py"]
if not find_spec("websocket"):
    collect_ignore.append("test_frames.py")
if not find_spec("cfnlint"):
    collect_ignore += ["test_template.py", "test_expanded_template.py"]
if sys.platform != "linux":  # AWS's client for Lambda has wheels for Linux alone
    collect_ignore.append("e2e/test_lambda_runtime.py")
collect_ignore.append("browsers")  # `make browsers` runs these


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Plain `pytest` uses all cores where pytest-xdist is installed.

    It has one worker more than cores, since a third of the tests' time is waiting.
    """
    is_plain = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if is_plain and not is_worker and config.getoption("numprocesses", "none") is None:
        cores = config.hook.pytest_xdist_auto_num_workers(config=config)
        config.option.numprocesses = cores + 1
        config.option.dist = "worksteal"  # so that no worker is left alone with the last tests


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
        a_minute_a_frame = count(step=60).__next__  # nobody sends too fast
        self.handler = Handler(self.storage, self.sender, Pace(clock=a_minute_a_frame))
        self._ids = count(1)

    def somebody(self) -> Person:
        """A new person, without a nickname yet."""
        person = Person(self, f"connection-{next(self._ids)}=")
        self.handler.connect(person.id)
        return person

    def signs_in(self, account: str, nickname: str, room: str | None = None) -> Person:
        """A new person with an account, and in a room if one is given."""
        person = Person(self, f"connection-{next(self._ids)}=")
        assert self.handler.connect(person.id, Account(account, nickname))
        if room is not None:
            person.says(f"/join {room}")
            self.connections.posts.clear()
        return person

    def refuses(self, account: str, nickname: str) -> bool:
        """Whether the handshake of an account fails."""
        return not self.handler.connect(
            f"connection-{next(self._ids)}=", Account(account, nickname)
        )

    def person(self, name: str, room: str | None = None) -> Person:
        """A new person with a nickname, and in a room if one is given."""
        person = self.somebody()
        person.says(name)
        if room is not None:
            person.says(f"/join {room}")
        self.connections.posts.clear()
        return person

    def has(self, *people: tuple[str, str, str | None]) -> None:
        """Write people straight into the table, for speed: their ids, nicknames and rooms."""
        expires_at = int(self.clock()) + LIFETIME_SECONDS
        rows = []
        for n, (id, name, room) in enumerate(people):
            person = Connection(id, name, room, expires_at)
            rows += [person.row]
            rows += [person.claim_row] if name else []
            rows += [person.member_row(joined_at=n)] if room else []
        counts = Counter(room for _, _, room in people if room)
        for row in self.rows():
            if row["PK"] == "rooms":
                counts[row["SK"].removeprefix("open_")] += int(row["members"])
        for room, members in counts.items():
            rows += [{**directory_key(room), "members": members, "expires_at": expires_at}]
        self.write(rows)

    def has_members(self, room: str, members: int) -> None:
        """People c0, c1, ... called p0, p1, ... in a room."""
        self.has(*((f"c{n}", f"p{n}", room) for n in range(members)))

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        moto_table.write(rows)

    def rows(self) -> list[dict[str, Any]]:
        return moto_table.rows()


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


@pytest.fixture(scope="module", autouse=True)
def aws() -> Iterator[None]:
    """AWS as mocked by moto; the user's own configuration is hidden."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setattr(models, "copy", moto_table.CopiesLittle())
        mock = mock_aws()
        mock.start(reset=False)
        yield
        mock.stop(remove_data=False)


@cache
def boto3_session() -> boto3.Session:
    return boto3.Session()


@pytest.fixture
def table(aws: None) -> Iterator[Any]:
    yield moto_table.table()
    moto_table.clear()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with Connections() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", server.url)
        yield server


@pytest.fixture
def chat(table: Any, connections: Connections) -> Iterator[Chat]:
    """Whatever is said, each message to a client fits one frame of API Gateway."""
    yield Chat(table, connections)
    assert all(len(request.body) <= 32_768 for request in connections.requests)


@pytest.fixture
def storage(chat: Chat) -> Storage:
    return chat.storage


@pytest.fixture
def john(chat: Chat) -> Person:
    return chat.person("John", "chalice")


@pytest.fixture
def jenny(john: Person, chat: Chat) -> Person:
    return chat.person("Jenny", "chalice")
