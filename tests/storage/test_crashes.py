"""The state after a function dies, DynamoDB fails, or answers get lost, at any request."""

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.invocation import JsonFormatter
from chalicelib.storage.rows import LIFETIME_SECONDS, Account, Connection
from tests import tables
from tests.conftest import Chat, Crash, Person, at_request, crash, session
from tests.connections import Connections
from tests.invariants import problems
from tests.lossy import Lossy

EXCUSE = "Something went wrong. Please try again."


Act = Callable[["Scene"], None]


class Scene:
    """John alone in a room, Jenny in another with Zoe and Ulrike, a newcomer, and one who vanished.

    Ulrike has signed in.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._now = chat.clock.now
        self.new, self.john, self.jenny, self.zoe, self.ulrike = (
            Person(chat, id) for id in ("c0", "c1", "c2", "c3", "c5")
        )
        chat.has(
            ("c0", "", None),
            ("c1", "John", "kitchen"),
            ("c2", "Jenny", "garden"),
            ("c3", "Zoe", "garden"),
            ("c4", "Ghost", "attic"),
            ("c5", "Ulrike", "garden"),
        )
        expires_at = int(self._now) + LIFETIME_SECONDS
        ulrike = Connection("c5", "Ulrike", "garden", expires_at, account="u")
        chat.write([ulrike.row, ulrike.account_row])
        self._rows = chat.rows()
        self.begin()

    def begin(self) -> None:
        """The state before any operation."""
        tables.reset(self.chat.table, self.chat.rows(), self._rows)
        self.chat.clock.now = self._now
        self.chat.connections.gone = {"c4"}
        self.chat.connections.posts.clear()
        self.people = [self.new, self.john, self.jenny, self.zoe, self.ulrike]

    def state(self) -> frozenset[Any]:
        """The relevant state of the table and of the connections; a count decides nothing."""
        about = ("PK", "SK", "room", "username", "connection_id")
        rows = (tuple(row.get(name) for name in about) for row in self.chat.rows())
        return frozenset([*rows, *self.chat.connections.gone])

    def finds_zoe_gone(self) -> None:
        self.zoe.vanishes()
        self.jenny.says("Good evening")

    def problems(self, *, high_counts: bool = True) -> list[str]:
        return problems(self.chat.rows(), self.chat.clock.now, high_counts=high_counts)


def connect(scene: Scene) -> None:
    scene.people.append(scene.chat.somebody())


def signing_in(account: str, nickname: str, *, later: float = 0.0) -> Act:
    """API Gateway knows the connection only once its handshake has succeeded."""

    def sign_in(scene: Scene) -> None:
        scene.chat.clock.advance(later)
        scene.chat.connections.gone.add("c9")
        assert scene.chat.handler.connect("c9", Account(account, nickname))
        scene.chat.connections.gone.remove("c9")
        scene.people.append(Person(scene.chat, "c9"))

    return sign_in


OPERATIONS: dict[str, Act] = {
    "connect": connect,
    "sign in": signing_in("a", "Adam"),
    "sign in under the name of a vanished person": signing_in("a", "ghost", later=60),
    "sign in elsewhere": signing_in("u", "Ulrike"),
    "sign in elsewhere under another name": signing_in("u", "Uli"),
    "log in": lambda scene: scene.new.says("Adam"),
    "log in under the name of a vanished person": lambda scene: scene.new.says("ghost"),
    "rename": lambda scene: scene.john.says("/nick Jack"),
    "rename in company": lambda scene: scene.jenny.says("/nick Jane"),
    "open a room": lambda scene: scene.zoe.says("/join cellar"),
    "join a room": lambda scene: scene.john.says("/join garden"),
    "join the room again": lambda scene: scene.john.says("/join kitchen"),
    "join the room of a vanished person": lambda scene: scene.john.says("/join attic"),
    "quit as the last member": lambda scene: scene.john.says("/quit"),
    "quit": lambda scene: scene.jenny.says("/quit"),
    "disconnect as the last member": lambda scene: scene.john.disconnects(),
    "disconnect": lambda scene: scene.jenny.disconnects(),
    "find a member gone": lambda scene: scene.finds_zoe_gone(),
    "disconnect without a name": lambda scene: scene.new.disconnects(),
}


def throttle() -> None:
    error = {"Code": "ProvisionedThroughputExceededException", "Message": "slow down"}
    raise ClientError({"Error": error}, "any")


MOST_REQUESTS = 12
ATTEMPTS = 4  # of boto3, before it gives up a request


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_state_after_a_crash_heals(chat: Chat, name: str) -> None:
    scene = Scene(chat)
    for number in range(1, MOST_REQUESTS + 1):
        scene.begin()
        with at_request(chat, number, "after-call", crash) as seen:
            try:
                OPERATIONS[name](scene)
            except Crash:
                pass
            else:
                assert seen[0] < number
        assert scene.problems() == []
        it_heals(scene)
        if seen[0] < number:
            return
    raise AssertionError("the operation never finished")


healed: set[frozenset[Any]] = set()


def it_heals(scene: Scene) -> None:
    """Check each state only once, however many crashes lead to it."""
    state = scene.state()
    if state not in healed:
        nobody_is_locked_out(scene)
        nothing_is_left_after_expiry(scene)
        healed.add(state)


def nobody_is_locked_out(scene: Scene) -> None:
    """Connected people can go on, and the names of the others are free."""
    chat = scene.chat
    for n, person in enumerate(scene.people):
        if person.id in chat.connections.gone:
            continue
        person.says(f"Guest{n}")
        if person is scene.ulrike and person.id in chat.connections.gone:
            continue  # she has signed in elsewhere, and was not told
        person.says("/join lobby")
        chat.connections.posts.clear()
        person.says("Hello")
        assert any(": Hello" in line for line in chat.connections.received(person.id))
    assert scene.problems() == []
    for person in scene.people:
        person.vanishes()
    heir = chat.person("Heir")
    for name in ("John", "Jenny", "Zoe", "Ghost", "Adam", "Jack", "Jane", "Ulrike", "Uli"):
        heir.says(f"/nick {name}")
        heir.hears(f"Nickname is: {name}")
    heir.disconnects()


def nothing_is_left_after_expiry(scene: Scene) -> None:
    """All rows have expired, so DynamoDB deletes them."""
    scene.chat.clock.advance(LIFETIME_SECONDS + 1)
    assert scene.chat.storage.list_rooms() == set()
    assert all(row["expires_at"] <= scene.chat.clock.now for row in scene.chat.rows())


PRIVATE = "john|jenny|zoe|ghost|adam|jack|jane|ulrike|uli|kitchen|garden|attic|cellar|evening"


def assert_nothing_private(caplog: pytest.LogCaptureFixture) -> None:
    """The log since the last check has no nickname, no room and no text."""
    logged = "\n".join(map(JsonFormatter().format, caplog.records))
    without_paths = re.sub("File .*?, line", "", logged)
    assert not re.findall(PRIVATE, without_paths, re.IGNORECASE)
    caplog.clear()


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_failing_request_is_reported_or_made_good(
    chat: Chat, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(chat)
    for number in range(1, MOST_REQUESTS + 1):
        scene.begin()
        with at_request(chat, number, "before-call", throttle) as seen:
            try:
                OPERATIONS[name](scene)
            except ClientError:
                assert name.startswith(("connect", "sign in", "disconnect"))
        assert scene.problems() == []
        if not name.startswith("disconnect"):
            told = any(EXCUSE in lines for lines in chat.connections.posts.values())
            assert not told or scene.problems(high_counts=False) == []
        it_heals(scene)
        assert_nothing_private(caplog)
        if seen[0] < number:
            return
    raise AssertionError("the operation never finished")


# Answers that get lost


@pytest.fixture
def network(table: Any, monkeypatch: pytest.MonkeyPatch) -> Lossy:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    return Lossy(session(), table)


@pytest.fixture
def lossy_chat(network: Lossy, chat: Chat, connections: Connections) -> Chat:
    """Its tests read and write the table past the network."""
    lossy = Chat(network.table, connections)
    lossy.table = chat.table
    return lossy


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_count_is_too_low_when_answers_get_lost(
    lossy_chat: Chat, network: Lossy, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After each write, one to four in a row; or the write itself comes late."""
    scene = Scene(lossy_chat)
    network.loses(range(0))
    OPERATIONS[name](scene)
    assert scene.problems(high_counts=False) == []
    numbers = range(len(network.writes))
    for first, lost, late in [
        *product(numbers, range(1, ATTEMPTS + 1), [False]),
        *product(numbers, [ATTEMPTS], [True]),
    ]:
        scene.begin()
        network.loses(range(first, first + lost), late=late)
        try:
            OPERATIONS[name](scene)
        except (ReadTimeoutError, ClientError):
            assert name.startswith(("connect", "sign in", "disconnect"))
        unanswered = network.writes[first : first + lost]
        assert unanswered
        is_exact = lost < ATTEMPTS and "UpdateItem" not in unanswered and not late
        assert scene.problems(high_counts=not is_exact) == []
        if late:
            network.arrive()
            assert scene.problems() == []
        assert_nothing_private(caplog)


def test_a_room_with_members_is_listed_whatever_answers_get_lost(
    lossy_chat: Chat, network: Lossy
) -> None:
    john, jenny, _ = (lossy_chat.person(name, "chalice") for name in ("John", "Jenny", "Jack"))
    outside = lossy_chat.person("Zoe")
    for leaver in (john, jenny):
        network.loses(range(1, 1 + ATTEMPTS))  # the first write is the transaction
        leaver.says("/quit")
        outside.says("/ls")
        outside.hears("chalice")
