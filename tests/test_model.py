"""The whole chat compared with a simple model of its protocol, for any events in any order."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from chalicelib.announcer import AUDIENCE
from chalicelib.commands import HELP
from chalicelib.storage.membership import HANDSHAKE_SECONDS
from chalicelib.storage.rows import LIFETIME_SECONDS, Account
from chalicelib.text import names
from tests.conftest import Chat, Person, dynamodb
from tests.connections import Connections
from tests.invariants import problems
from tests.tables import create_table

Heard = dict[str, list[str]]


@dataclass
class Client:
    """A connection as its owner sees it."""

    expires_at: float
    name: str = ""
    room: str = ""
    is_open: bool = True
    account: str = ""


class Model:
    """The protocol in memory: the lines that everybody hears after each event.

    `rooms` has the members in the order in which they joined. `counts` is the directory, which
    keeps counting members that expired silently, until it expires itself. `latest` has the last
    connection of each account, open or closed, and when that would expire.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.audience = AUDIENCE
        self.clients: dict[str, Client] = {}
        self.latest: dict[str, tuple[str, float]] = {}
        self.rooms: defaultdict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self.listed_until: dict[str, float] = {}
        self.heard: defaultdict[str, list[str]] = defaultdict(list)

    def sign_in(self, id: str, client: Client) -> bool:
        """Whether an account may connect."""
        older = {h for h in self.clients if self._alive(h) and self._is_of(h, client.account)}
        holders = {h for h in self.clients if self._holds(h, client.name)} - older
        if any(self.clients[h].is_open or self._is_new(h) for h in holders):
            return False
        self._bury(holders)
        for other in older:
            if self.clients[other].is_open:
                self.heard[other].append("You have connected from elsewhere.")
        self._bury(older)
        self.clients[id] = client
        self.latest[client.account] = id, client.expires_at
        return True

    def _is_of(self, id: str, account: str) -> bool:
        return self.clients[id].account == account

    def _is_new(self, id: str) -> bool:
        """API Gateway says that a connection is gone while its handshake is not complete."""
        return self.clients[id].expires_at - LIFETIME_SECONDS > self.now - HANDSHAKE_SECONDS

    def frame(self, id: str, text: str) -> None:
        client = self._alive(id)
        if client is None:
            latest, expires_at = self.latest.get(self.clients[id].account, (id, 0))
            elsewhere = "You have connected from elsewhere."
            expired = "Your session has expired. Please reconnect."
            self._post([id], elsewhere if latest != id and expires_at > self.now else expired)
            self.clients[id].is_open = False
        elif not client.name:
            if self._rename(id, client, text):
                welcome = f"Using nickname: {client.name}\nType /help for list of commands."
                self._post([id], welcome)
        elif text.startswith("/"):
            word, _, argument = text[1:].partition(" ")
            self._command(id, client, word.lower(), argument.strip())
        elif client.room:
            self._post(self.members(client.room), f"{client.name}: {text}")
        else:
            self._post([id], "Cannot send message if not in chatroom.")

    def disconnect(self, id: str) -> None:
        self._bury({id})

    def members(self, room: str) -> list[str]:
        return [id for id in self.rooms[room] if self._alive(id)]

    def listed(self) -> list[str]:
        return sorted(
            r for r, n in self.counts.items() if n > 0 and self.listed_until[r] > self.now
        )

    def _command(self, id: str, client: Client, word: str, argument: str) -> None:
        if word == "help":
            self._post([id], HELP)
        elif word == "room":
            outside = "Not currently in a room. Type /join {room_name} to do so."
            self._post([id], client.room or outside)
        elif word == "ls" and client.room:
            listed = [self.clients[member].name for member in self.members(client.room)]
            self._post([id], "\n".join(listed))
        elif word == "ls":
            nothing = "No chat rooms open. Type /join {room_name} to open one."
            self._post([id], "\n".join(self.listed()) or nothing)
        elif word == "quit":
            self._quit(id, client)
        elif word == "nick":
            self._nick(id, client, argument)
        elif word == "join":
            self._join(id, client, argument)
        else:
            self._post([id], f"Unknown command: {word}")

    def _nick(self, id: str, client: Client, name: str) -> None:
        old = client.name
        if not name:
            self._post([id], f"Current nickname: {old}")
        elif client.account:
            self._post([id], "Your nickname comes from your account.")
        elif self._rename(id, client, name):
            self._post([id], f"Nickname is: {name}")
            self._announce(self._others(id, client.room), f"{old} is now known as {name}.")

    def _rename(self, id: str, client: Client, wish: str) -> bool:
        try:
            name = names.nickname(wish)
        except names.InvalidName as invalid:
            self._post([id], str(invalid))
            return False
        holders = [h for h in self.clients if h != id and self._holds(h, name)]
        if any(self.clients[holder].is_open for holder in holders):
            self._post([id], f"Nickname {name} is already in use.")
            return False
        self._bury(set(holders))
        client.name = name
        return True

    def _holds(self, id: str, name: str) -> bool:
        client = self._alive(id)
        return (
            client is not None
            and bool(client.name)
            and names.claim(client.name) == names.claim(name)
        )

    def _join(self, id: str, client: Client, room: str) -> None:
        if not room:
            self._post([id], "Usage: /join {chat_room_name}")
            return
        old, client.room = client.room, room
        if old != room:
            self._count_in(room)
        if old:
            self.rooms[old].remove(id)
            self.counts[old] -= old != room
        self.rooms[room].append(id)
        if old:
            self._say_left(id, client, old)
        self._post([id], f'Joined chat room "{room}"')
        self._announce(self._others(id, room), f"{client.name} joined room.")

    def _quit(self, id: str, client: Client) -> None:
        room, client.room = client.room, ""
        if room:
            self.rooms[room].remove(id)
            self.counts[room] -= 1
            self._say_left(id, client, room)

    def _say_left(self, id: str, client: Client, room: str) -> None:
        self._post([id], f'Left chat room "{room}"')
        self._announce(self._others(id, room), f"{client.name} left room.")

    def _count_in(self, room: str) -> None:
        if self.listed_until.get(room, 0) <= self.now:
            self.counts[room] = 0
        self.counts[room] += 1
        self.listed_until[room] = int(self.now) + LIFETIME_SECONDS

    def _announce(self, ids: list[str], line: str) -> None:
        if len(ids) <= self.audience:
            self._post(ids, line)

    def _post(self, ids: Iterable[str], line: str) -> None:
        self._bury(self._deliver(ids, line))

    def _deliver(self, ids: Iterable[str], line: str) -> set[str]:
        gone = set()
        for id in ids:
            if id in self.clients and not self.clients[id].is_open:
                gone.add(id)
            else:
                self.heard[id].append(line)
        return gone

    def _bury(self, gone: set[str]) -> None:
        dead: set[str] = set()
        while gone:
            dead |= gone
            left = [client for id in gone if (client := self._remove(id)) and client.room]
            gone = set()
            for client in left:
                alive = [id for id in self.members(client.room) if id not in dead]
                if len(alive) <= self.audience:
                    gone |= self._deliver(alive, f"{client.name} left room.")

    def _remove(self, id: str) -> Client | None:
        client = self._alive(id)
        self.clients.pop(id, None)
        if client and client.room:
            self.rooms[client.room].remove(id)
            self.counts[client.room] -= 1
        return client

    def _alive(self, id: str) -> Client | None:
        client = self.clients.get(id)
        return client if client and client.expires_at > self.now else None

    def _others(self, id: str, room: str) -> list[str]:
        return [other for other in self.members(room) if other != id] if room else []


NAMES = ["John", "JOHN", "jenny", "Jenny", "ﬁn", "fin", "a b", ":", "/x"]
ROOMS = ["tea", "Tea", "room_tea"]
FRAMES = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from([f"/nick {name}" for name in NAMES if " " not in name]),
    st.sampled_from([f"/join {room}" for room in ROOMS]),
    st.sampled_from(
        ["/ls", "/quit", "/room", "/nick", "/join", "/help", "/foo", "Hi", "", "John: "]
    ),
)
HALF_AN_HOUR = 1_800.5


class ChatMachine(RuleBasedStateMachine):
    """Several people, a server, and a model that predicts their lines."""

    people = Bundle("people")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        environment = self.environment = self.stack.enter_context(pytest.MonkeyPatch.context())
        connections = self.stack.enter_context(Connections())
        environment.setenv("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", connections.url)
        table = create_table(dynamodb())
        self.stack.callback(table.delete)
        self.chat = Chat(table, connections)
        self.model = Model()
        self.ids: list[str] = []  # of those who have signed in
        self.somebody_expired = False  # ever: the directory keeps counting them

    def teardown(self) -> None:
        self.stack.close()

    @rule(target=people)
    def connects(self) -> Person:
        return self._connects()

    def _connects(self) -> Person:
        person = self.chat.somebody()
        expires_at = int(self.chat.clock.now) + LIFETIME_SECONDS
        self.model.clients[person.id] = Client(expires_at)
        return person

    @rule(
        target=people, name=st.sampled_from(["John", "Jenny", "Zoe"]), room=st.sampled_from(ROOMS)
    )
    def connects_and_joins(self, name: str, room: str) -> Person:
        person = self._connects()
        self.says(person, name)
        self.says(person, f"/join {room}")
        return person

    @rule(
        target=people,
        account=st.sampled_from(["a", "b"]),
        name=st.sampled_from(["John", "JOHN", "Jenny"]),
        room=st.sampled_from([*ROOMS, None]),
    )
    def signs_in(self, account: str, name: str, room: str | None) -> Person | MultipleResults:
        self._now()
        expires_at = int(self.chat.clock.now) + LIFETIME_SECONDS
        client = Client(expires_at, name, account=account)
        person = Person(self.chat, f"signed-in-{len(self.ids)}", Account(account, name))
        self.ids.append(person.id)
        accepted = self.model.sign_in(person.id, client)
        assert self.chat.handler.connect(person.id, person.account) == accepted
        if not accepted:
            return multiple()
        if room:
            self.says(person, f"/join {room}")
        return person

    @rule(person=people, frame=FRAMES)
    def says(self, person: Person, frame: str) -> None:
        client = self.model.clients.get(person.id)
        if client and client.is_open:
            self._now()
            person.says(frame)
            self.model.frame(person.id, frame)

    @rule(person=consumes(people))
    def disconnects(self, person: Person) -> None:
        self.vanishes(person)
        self._now()
        person.disconnects()
        self.model.disconnect(person.id)

    @rule(person=people)
    def vanishes(self, person: Person) -> None:
        """`$disconnect` is lost, or late."""
        person.vanishes()
        if person.id in self.model.clients:
            self.model.clients[person.id].is_open = False

    @rule(halves=st.integers(1, 5))
    def time_passes(self, halves: int) -> None:
        self.chat.clock.advance(halves * HALF_AN_HOUR)

    @rule(data=st.data())
    def dynamodb_deletes_some_expired_rows(self, data: st.DataObject) -> None:
        rows = self.chat.rows()
        expired = [row for row in rows if row["expires_at"] <= self.chat.clock.now]
        if expired:
            for row in data.draw(st.lists(st.sampled_from(expired), max_size=5)):
                self.chat.table.delete_item(Key={"PK": row["PK"], "SK": row["SK"]})

    def _now(self) -> None:
        self.model.now = self.chat.clock.now

    @invariant()
    def everybody_hears_the_lines_that_the_model_predicts(self) -> None:
        assert sorted_lines(self.chat.connections.posts) == sorted_lines(self.model.heard)
        self.chat.connections.posts.clear()
        self.model.heard.clear()

    @invariant()
    def the_table_agrees_with_the_model(self) -> None:
        self._now()
        self.somebody_expired |= any(
            client.expires_at <= self.model.now for client in self.model.clients.values()
        )
        rows = self.chat.rows()
        assert problems(rows, self.model.now, high_counts=self.somebody_expired) == []
        connected = {
            (row["PK"], row["SK"].removeprefix("username_"), row.get("room", ""))
            for row in rows
            if row["SK"].startswith("username_") and row["expires_at"] > self.model.now
        }
        assert connected == {
            (id, client.name, client.room)
            for id, client in self.model.clients.items()
            if client.expires_at > self.model.now
        }
        assert sorted(self.chat.storage.list_rooms()) == self.model.listed()


class CrowdMachine(ChatMachine):
    """Two are a crowd: joins, departures and renames are not announced to them."""

    def __init__(self) -> None:
        super().__init__()
        self.environment.setattr("chalicelib.announcer.AUDIENCE", 1)
        self.model.audience = 1


def sorted_lines(heard: Heard) -> Heard:
    """Departures found together share a message; the model does not predict the grouping."""
    return {id: sorted("\n".join(messages).split("\n")) for id, messages in heard.items()}


TestChat = ChatMachine.TestCase
TestCrowd = CrowdMachine.TestCase
TestChat.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
TestCrowd.settings = settings(TestChat.settings, max_examples=6)
