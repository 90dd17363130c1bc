"""The chat over moto's DynamoDB and a local `@connections` API, and people who use it."""

import gc
import importlib
import io
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chalice import Chalice
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends

from chalicelib import Handler, Sender, Storage
from chalicelib.aws import new_session
from chalicelib.invocation import log
from chalicelib.pace import Pace
from chalicelib.storage.rows import LIFETIME_SECONDS, Account, Connection, directory_key
from emulator.emulator import only
from scripts.package import without_account
from scripts.run import PROXIES
from tests import tables
from tests.connections import Connections

# The tests that need more than chalice, boto3, websocket-client, pytest and moto[dynamodb], by the
# module that they need. Without it, pytest leaves them out, and says so.
NEEDS = {
    "awslambdaric": ["e2e/test_lambda_runtime.py"],  # on Linux alone
    "awscli": ["test_expanded_template.py", "test_template.py"],
    "cfnlint": ["test_expanded_template.py", "test_template.py"],
    "confusable_homoglyphs": ["text/test_lookalikes.py"],
    "hypothesis": ["posting/test_any_answer.py", "test_any_text.py", "test_model.py"],
    "jwt": ["sign_in", "test_page_sign_in.py"],
    "playwright": ["browsers", "e2e"],
    "samtranslator": ["test_expanded_template.py"],
    "trustme": ["sign_in", "test_page_sign_in.py", "test_tls.py"],
}
MISSING = [module for module in NEEDS if not find_spec(module)]
collect_ignore = sorted({test for module in MISSING for test in NEEDS[module]} | {"browsers"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs the other tests with the five packages only."""
    needing = [Path(__file__).parent / test for several in NEEDS.values() for test in several]
    for item in items:
        if any(item.path.is_relative_to(each) for each in needing):
            item.add_marker("more")


def pytest_report_header() -> list[str]:
    return [f"without {module}, left out: {', '.join(NEEDS[module])}" for module in MISSING]


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


def pytest_keyboard_interrupt() -> None:
    print("\nStopping, which takes up to 10 seconds ...", flush=True)  # pytest-xdist's patience


# moto keeps every copy of a row until the test ends. At Python's own threshold, looking for garbage
# among these copies took a tenth of the time.
gc.set_threshold(50_000)

LogLines = Callable[[], list[dict[str, Any]]]


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

    def __init__(self, chat: "Chat", connection_id: str, account: Account | None = None) -> None:
        self.chat = chat
        self.id = connection_id
        self.account = account

    def says(self, text: str) -> None:
        self.chat.handler.handle(self.id, text, self.account)

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
        self.app.websocket_api.session = session()
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
        person = Person(self, f"connection-{next(self._ids)}=", Account(account, nickname))
        assert self.handler.connect(person.id, person.account)
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

    def existing(self, name: str, room: str | None = None) -> Person:
        """As `person`, but written straight into the table, for speed."""
        person = Person(self, f"connection-{next(self._ids)}=")
        self.has((person.id, name, room))
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
        tables.write(self.table, rows)

    def rows(self) -> list[dict[str, Any]]:
        """From moto's memory: a scan takes ten times as long."""
        backend = dynamodb_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]
        return [item.to_regular_json() for item in backend.get_table(self.table.name).all_items()]


@contextmanager
def requests(storage: Storage) -> Iterator[Counter[str]]:
    """Counts the requests to DynamoDB inside the block, by operation."""
    sent: Counter[str] = Counter()

    def count(model: Any, **_: Any) -> None:
        sent[model.name] += 1

    events = storage.table.meta.client.meta.events
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

    events = chat.storage.table.meta.client.meta.events
    events.register(f"{moment}.dynamodb", hook)
    try:
        yield seen
    finally:
        events.unregister(f"{moment}.dynamodb", hook)


def crash() -> None:
    raise Crash


@pytest.fixture(scope="session", autouse=True)
def no_account() -> Iterator[None]:
    """Hides the caller's AWS settings, and proxies that would get requests to this machine."""
    ours = without_account()
    with only({name: ours[name] for name in ours.keys() - PROXIES}):
        yield


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS as mocked by moto."""
    # No test uses `requests`; moto would register a thousand addresses with it for each test.
    monkeypatch.setattr("moto.core.models.RESPONSES_METHODS", [])
    with mock_aws():
        yield


@cache
def session() -> Any:
    """One for all tests, since the first client of a session takes a tenth of a second."""
    return new_session()


@cache
def dynamodb() -> Any:
    return session().resource("dynamodb")


@pytest.fixture
def table(aws: None) -> Any:
    return tables.create_table(dynamodb())


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
def app(
    table: Any, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """A fresh import, as at a cold start."""
    monkeypatch.setenv("TABLE", table.name)
    sys.modules.pop("app", None)
    yield importlib.import_module("app")
    sys.modules.pop("app", None)
    log.handlers.clear()
    log.propagate = True


@pytest.fixture
def log_lines(app: ModuleType) -> LogLines:
    """The functions' log lines, parsed."""
    (handler,) = (h for h in log.handlers if type(h) is logging.StreamHandler)
    output = io.StringIO()
    handler.setStream(output)
    return lambda: [json.loads(line) for line in output.getvalue().splitlines()]


@pytest.fixture
def storage(chat: Chat) -> Storage:
    return chat.storage


@pytest.fixture
def john(chat: Chat) -> Person:
    return chat.person("John", "chalice")


@pytest.fixture
def jenny(john: Person, chat: Chat) -> Person:
    return chat.person("Jenny", "chalice")
