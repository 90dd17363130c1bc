"""Says lines to people: to one, to a room, and to a room that somebody has left."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import islice

from chalicelib.invocation import log
from chalicelib.sender import Sender
from chalicelib.storage import Connection, Storage
from chalicelib.text import texts

# If more people than this would hear a join, departure or rename, nobody does: a thousand people
# leaving at once would cost half a million posts.
AUDIENCE = 200


class Announcer:
    """Posts lines, removes connections that turn out to be gone, and tells their rooms."""

    def __init__(self, storage: Storage, sender: Sender) -> None:
        self._storage = storage
        self._sender = sender

    def reply(self, connection: Connection, line: str) -> None:
        self.post([connection], too_long(line) if texts.is_too_long(line) else line)

    def announce(self, connection: Connection, room: str | None, line: str) -> None:
        """Announce a join, a departure or a new nickname to everybody else in a room."""
        if room is not None:
            self.post(self._audience(room, {connection.id}), line)

    def post(self, connections: Iterable[Connection], message: str) -> None:
        self._remove(self._sender.post(connections, message))

    def remove(self, connection_id: str) -> None:
        """Remove a closed connection, and announce its departure once.

        Raises `StaleRecord` or DynamoDB's error if it cannot be removed. Then nothing has changed,
        unless DynamoDB's last answer was lost.
        """
        departed = self._storage.delete_connection(connection_id)
        if departed is not None:
            self._announce_departure(departed)

    def frees(self, nickname: str, holder: str) -> bool:
        """Remove a nickname's holder if it is gone; returns whether the nickname is free now."""
        if not self._sender.is_gone(holder):
            return False
        self.remove(holder)
        self._storage.release_nickname(nickname, holder)
        return True

    def end(self, older: Connection, line: str) -> None:
        """Tell a removed connection why, close it, and announce its departure."""
        try:
            self._sender.post([older], line)
            self._sender.close(older.id)
        except Exception:
            log.exception("an older connection could not be closed")
        self._announce_departure(older)

    def _announce_departure(self, departed: Connection) -> None:
        self._remove(self._announce_departures([departed], {departed.id}))

    def _audience(self, room: str, absent: Collection[str]) -> list[Connection]:
        """The members who hear announcements, without the absent; none if there are too many."""
        members = self._storage.iter_members(room, limit=AUDIENCE + 2)
        present = (member for member in members if member.id not in absent)
        audience = list(islice(present, AUDIENCE + 1))
        return audience if len(audience) <= AUDIENCE else []

    def _remove(self, gone: list[Connection]) -> None:
        """Remove gone connections and announce their departures; repeat if that finds others gone.

        Works in batches, so a crash loses few announcements. Stops near the deadline: the next text
        finds the rest.
        """
        absent: set[str] = set()
        while gone:
            absent |= {connection.id for connection in gone}
            found: dict[str, Connection] = {}
            for removed in self._storage.delete_gone(gone):
                found |= {each.id: each for each in self._announce_departures(removed, absent)}
            gone = list(found.values())

    def _announce_departures(
        self, departed: list[Connection], absent: Collection[str]
    ) -> list[Connection]:
        """Announce departures to each room, in one message if they fit; returns members found gone.
        Failures are logged."""
        gone: list[Connection] = []
        for room, leavers in _by_room(departed).items():
            lines = [f"{connection.nickname} left room." for connection in leavers]
            try:
                audience = self._audience(room, absent)
                for message in texts.messages(lines):
                    gone += self._sender.post(audience, message)
            except Exception:
                log.exception("departures could not be announced")
        return gone


def too_long(line: str) -> str:
    return f"Message too long: {len(line.encode())} bytes, the limit is {texts.MESSAGE_BYTES}."


def _by_room(connections: Iterable[Connection]) -> dict[str, list[Connection]]:
    rooms = defaultdict(list)
    for connection in connections:
        if connection.room is not None:
            rooms[connection.room].append(connection)
    return rooms
