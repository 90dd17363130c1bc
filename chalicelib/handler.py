"""Answers frames: a nickname to log in with, a command, or a text for the room.

Only this module composes the lines of the chat.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from itertools import chain, islice

from chalicelib import aws, names, texts
from chalicelib.departures import DEPARTURES
from chalicelib.log import log
from chalicelib.metrics import count
from chalicelib.names import InvalidName
from chalicelib.pace import Pace, Verdict, weight
from chalicelib.rows import Account, Connection
from chalicelib.sender import Sender
from chalicelib.storage import Storage
from chalicelib.transactions import (
    REST_SECONDS,
    Conflict,
    NicknameTaken,
    StaleRecord,
    pauses,
)

# Joins, departures and renames that more people than this would hear of are not announced: a
# thousand people who leave at once would cost half a million posts.
AUDIENCE = 200

HELP = """\
Commands available:
    /help
          Display this message.
    /join {chat_room_name}
          Join a chatroom named {chat_room_name}.
    /nick {nickname}
          Change your name to {nickname}. If no {nickname}
          is provided then your current name will be printed
    /room
          Print out the name of the room you are currently\x20
          in.
    /ls
          If you are in a room, list all users also in the
          room. Otherwise, list all rooms.
    /quit
          Leave current room.

If you are in a room, raw text messages that do not start\x20
with a / will be sent to everyone else in the room."""

MOST_ROOMS = 1_000  # in one list

TOO_FAST = "You are sending too fast. Wait a moment."

ATTEMPTS = 5  # to answer a frame while others of its connection are answered

# Connections removed before their departures are announced: 7 transactions, a fraction of a
# second. Each announcement costs up to `AUDIENCE` posts.
REMOVED_AT_ONCE = 7 * DEPARTURES

Command = Callable[[Connection, list[str]], None]


class Handler:
    """The rules of the chat. A frame changes the table at most once, then gets its replies."""

    def __init__(self, storage: Storage, sender: Sender, pace: Pace | None = None) -> None:
        self._storage = storage
        self._sender = sender
        self._pace = pace or Pace()
        self._command_table: dict[str, Command] = {
            "help": self._help,
            "nick": self._nick,
            "join": self._join,
            "room": self._room,
            "ls": self._list,
            "quit": self._quit,
        }

    # Events

    def connect(self, connection_id: str, account: Account | None = None) -> bool:
        """Record a connection that has opened. Returns whether it may stay open.

        Without an account it may, at the cost of 1 request. With one, it takes the place of the
        account's older connection, and has the account's nickname from the start; it may not stay
        if somebody else has a nickname that looks the same. See `Storage.sign_in` for the cost.
        Raises DynamoDB's errors, and `StaleRecord` if too many others connect as this account.
        """
        if account is None:
            self._storage.create_connection(connection_id)
            return True
        try:
            older = self._storage.sign_in(connection_id, account)
        except NicknameTaken as taken:
            if not taken.is_new and self._removes_gone_holder(account.nickname, taken.holder):
                return self.connect(connection_id, account)
            log.warning("the nickname of an account is in use")
            return False
        if older is not None:
            self._end(older)
        return True

    def handle(self, connection_id: str, message: str) -> None:
        """Answer a frame, whatever its content. Raises nothing: failures are logged, and the
        sender is told that something went wrong.

        A text costs 2 requests to DynamoDB, both reads (1 more for each further MB of the room),
        and a post for each member. A command costs 1 read for the connection, plus the cost of
        its `Storage` method. A frame above the pace costs at most one post, or two requests if it
        closes the connection.
        """
        try:
            if self._keeps_pace(connection_id, message):
                self._answer(connection_id, texts.without_surrogates(message))
        except Exception:
            log.exception("a frame could not be handled")
            count(FramesFailed=1)
            self._apologise(connection_id)

    def disconnect(self, connection_id: str) -> None:
        """Remove a closed connection, and announce its departure once.

        Raises DynamoDB's errors if it cannot be removed; then nothing has changed.
        """
        departed = self._storage.delete_connection(connection_id)
        if departed is not None:
            self._remove(self._announce_departures([departed], {connection_id}))

    # Frames

    def _keeps_pace(self, connection_id: str, message: str) -> bool:
        """Whether to answer a frame. If not, tells the sender why, but not at every frame."""
        match self._pace.judge(connection_id, weight(message)):
            case Verdict.ANSWER:
                return True
            case Verdict.WARN:
                self._post([Connection(connection_id)], TOO_FAST)
            case Verdict.CLOSE:
                line = "You have been disconnected for sending too fast."
                self._post([Connection(connection_id)], line)
                self._sender.close(connection_id)
                log.warning("closed a connection that sent too fast")
        return False

    def _answer(self, connection_id: str, message: str) -> None:
        """Read the connection and act on it; retry if another frame has changed it meanwhile.

        One of the frames that meet always succeeds, so only many at once use up the attempts.
        """
        for pause in islice(pauses(), ATTEMPTS):
            connection = self._storage.find_connection(connection_id)
            try:
                return self._handle_frame(connection_id, connection, message)
            except Conflict:  # its own retries are used up
                break
            except StaleRecord:
                time.sleep(pause)
        log.warning("a frame met too many others of its connection")
        self._post([Connection(connection_id)], TOO_FAST)

    def _handle_frame(
        self, connection_id: str, connection: Connection | None, message: str
    ) -> None:
        if connection is None:
            self._sender.send(connection_id, "Your session has expired. Please reconnect.")
            self._sender.close(connection_id)
        elif not connection.username:
            self._handle_login_message(connection, message)
        else:
            self._handle_message(connection, message)

    def _handle_login_message(self, connection: Connection, message: str) -> None:
        named = self._rename(connection, message)
        if named is not None:
            self._reply(
                named, f"Using nickname: {named.username}\nType /help for list of commands."
            )

    def _handle_message(self, connection: Connection, message: str) -> None:
        if message.startswith("/"):
            self._handle_command(connection, message[1:])
        else:
            self._handle_text(connection, message)

    def _handle_command(self, connection: Connection, message: str) -> None:
        word, *arguments = re.split(r"\s+", message)
        command = self._command_table.get(word.lower())
        if command:
            command(connection, [argument for argument in arguments if argument])
        else:
            self._reply(connection, texts.repeated(word.lower(), "Unknown command: "))

    def _handle_text(self, connection: Connection, message: str) -> None:
        line = texts.repeated(message, f"{connection.username}: ")
        if connection.room is None:
            self._reply(connection, "Cannot send message if not in chatroom.")
        elif texts.is_too_long(line):
            self._reply(connection, _too_long_reply(line))
        else:
            # The index may not list the sender yet; it hears its own line all the same.
            others = (
                member
                for member in self._storage.iter_members(connection.room)
                if member.id != connection.id
            )
            count(Texts=1)
            self._post(chain([connection], others), line)

    # Commands

    def _help(self, connection: Connection, _arguments: list[str]) -> None:
        self._reply(connection, HELP)

    def _nick(self, connection: Connection, arguments: list[str]) -> None:
        if not arguments:
            self._reply(connection, f"Current nickname: {connection.username}")
            return
        if connection.account:
            self._reply(connection, "Your nickname comes from your account.")
            return
        renamed = self._rename(connection, arguments[0])
        if renamed is not None:
            self._reply(renamed, f"Nickname is: {renamed.username}")
            line = f"{connection.username} is now known as {renamed.username}."
            self._announce(renamed, renamed.room, line)

    def _join(self, connection: Connection, arguments: list[str]) -> None:
        if not arguments:
            self._reply(connection, "Usage: /join {chat_room_name}")
            return
        try:
            room = names.room(arguments[0])
        except InvalidName as invalid:
            self._reply(connection, str(invalid))
            return
        moved = self._storage.enter(connection, room)
        self._say_left(moved, connection.room)
        self._reply(moved, f'Joined chat room "{room}"')
        self._announce(moved, room, f"{moved.username} joined room.")

    def _room(self, connection: Connection, _arguments: list[str]) -> None:
        self._reply(
            connection,
            connection.room or "Not currently in a room. Type /join {room_name} to do so.",
        )

    def _list(self, connection: Connection, _arguments: list[str]) -> None:
        if connection.room is not None:
            lines = self._member_names(connection, connection.room)
        else:
            nothing = "No chat rooms open. Type /join {room_name} to open one."
            lines = self._room_names() or [nothing]
        for message in texts.messages(lines):
            self._reply(connection, message)

    def _quit(self, connection: Connection, _arguments: list[str]) -> None:
        outside = self._storage.leave(connection)
        self._say_left(outside, connection.room)

    def _rename(self, connection: Connection, wish: str) -> Connection | None:
        """Give the connection the nickname it asks for, or tell it why not."""
        try:
            username = names.nickname(wish)
            return self._storage.rename(connection, username)
        except InvalidName as invalid:
            self._reply(connection, str(invalid))
        except NicknameTaken as taken:
            if self._removes_gone_holder(username, taken.holder):
                raise StaleRecord(connection.id) from None
            self._reply(connection, f"Nickname {username} is already in use.")
        return None

    def _removes_gone_holder(self, username: str, holder: str) -> bool:
        """Whether the holder of a nickname is gone; then the nickname is free."""
        if not self._sender.is_gone(holder):
            return False
        self.disconnect(holder)
        self._storage.release_nickname(username, holder)
        return True

    def _end(self, older: Connection) -> None:
        """Close a connection whose place a newer one of its account has taken."""
        try:
            self._sender.post([older], "You have connected from elsewhere.")
            self._sender.close(older.id)
        except Exception:
            log.exception("an older connection could not be closed")
        self._remove(self._announce_departures([older], {older.id}))

    def _member_names(self, connection: Connection, room: str) -> list[str]:
        """In the order of joining, with the asker, whom the index may not list yet."""
        listed = {member.id: member.username for member in self._storage.list_members(room)}
        listed[connection.id] = connection.username
        return list(listed.values())

    def _room_names(self) -> list[str]:
        """The first `MOST_ROOMS`, so that a list costs little however many are open."""
        rooms = list(islice(self._storage.iter_rooms(MOST_ROOMS + 1), MOST_ROOMS + 1))
        if len(rooms) > MOST_ROOMS:
            rooms[MOST_ROOMS:] = ["... and more rooms."]
        return rooms

    # Posts

    def _reply(self, connection: Connection, line: str) -> None:
        self._post([connection], _too_long_reply(line) if texts.is_too_long(line) else line)

    def _say_left(self, connection: Connection, room: str | None) -> None:
        """Tell a connection, and those who stay, that it has left its room, if it had one."""
        if room is not None:
            self._reply(connection, f'Left chat room "{room}"')
            self._announce(connection, room, f"{connection.username} left room.")

    def _announce(self, connection: Connection, room: str | None, line: str) -> None:
        """Announce a join, a departure or a new nickname to everybody else in a room."""
        if room is not None:
            self._post(self._audience(room, {connection.id}), line)

    def _audience(self, room: str, absent: Collection[str]) -> list[Connection]:
        """The members who hear announcements, without the absent; empty above `AUDIENCE`."""
        members = self._storage.iter_members(room, limit=AUDIENCE + 2)
        present = (member for member in members if member.id not in absent)
        audience = list(islice(present, AUDIENCE + 1))
        return audience if len(audience) <= AUDIENCE else []

    def _post(self, connections: Iterable[Connection], message: str) -> None:
        self._remove(self._sender.post(connections, message))

    def _remove(self, gone: list[Connection]) -> None:
        """Remove connections that are gone, and announce to their rooms that they left.

        `REMOVED_AT_ONCE` of them are removed and announced before the next, so a crash loses few
        announcements. The announcements may find more connections gone, so this repeats until
        none are found. Near the deadline it stops: the next text finds the rest.
        """
        absent: set[str] = set()
        while gone:
            absent |= {connection.id for connection in gone}
            found: dict[str, Connection] = {}
            for start in range(0, len(gone), REMOVED_AT_ONCE):
                if aws.seconds_left() < REST_SECONDS:
                    log.warning("no time to remove all connections that are gone")
                    return
                some = gone[start : start + REMOVED_AT_ONCE]
                departed = self._storage.delete_connections(some)
                found |= {each.id: each for each in self._announce_departures(departed, absent)}
            gone = list(found.values())

    def _announce_departures(
        self, departed: list[Connection], absent: Collection[str]
    ) -> list[Connection]:
        """Announce them to each room, in one message if they fit; returns the members found gone.

        A failure is logged: the departed have left all the same.
        """
        gone: list[Connection] = []
        for room, leavers in _by_room(departed).items():
            lines = [f"{connection.username} left room." for connection in leavers]
            try:
                audience = self._audience(room, absent)
                for message in texts.messages(lines):
                    gone += self._sender.post(audience, message)
            except Exception:
                log.exception("departures could not be announced")
        return gone

    def _apologise(self, connection_id: str) -> None:
        try:
            self._sender.send(connection_id, "Something went wrong. Please try again.")
        except Exception:
            log.exception("the sender could not be told of the failure")


def _by_room(connections: Iterable[Connection]) -> dict[str, list[Connection]]:
    rooms = defaultdict(list)
    for connection in connections:
        if connection.room is not None:
            rooms[connection.room].append(connection)
    return rooms


def _too_long_reply(line: str) -> str:
    return f"Message too long: {len(line.encode())} bytes, the limit is {texts.MESSAGE_BYTES}."
