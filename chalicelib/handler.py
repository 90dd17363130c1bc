"""A frame in, the replies out: a nickname to log in with, a command, or a text for the room."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from chalicelib import names
from chalicelib.log import count, log
from chalicelib.names import InvalidName
from chalicelib.sender import Sender
from chalicelib.storage import Connection, NicknameTaken, StaleRecord, Storage, pauses

MESSAGE_BYTES = 131_072  # API Gateway quotas: "WebSocket message payload size", 128 KB

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

Command = Callable[[Connection, list[str]], None]


class Handler:
    """The rules of the chat. Each frame is at most one change of the table, then its replies."""

    def __init__(self, storage: Storage, sender: Sender) -> None:
        self._storage = storage
        self._sender = sender
        self._commands: dict[str, Command] = {
            "help": self._help,
            "nick": self._nick,
            "join": self._join,
            "room": self._room,
            "ls": self._list,
            "quit": self._quit,
        }

    def handle(self, connection_id: str, message: str) -> None:
        """Answer a frame, whatever is in it. Nothing is raised: what goes wrong is logged,
        and the sender is told that something did.

        A text costs 2 requests to DynamoDB and no write, whatever the table's size, and a
        post for each member; what a command costs stands at the method of `Storage` it uses,
        and 1 read for the connection.
        """
        try:
            self._answer(connection_id, _well_formed(message))
        except Exception:
            log.exception("a frame could not be handled")
            count(FramesFailed=1)
            self._sender.send(connection_id, "Something went wrong. Please try again.")

    def _answer(self, connection_id: str, message: str) -> None:
        """Read the connection, act on it; if another frame changed it meanwhile, do so again."""
        for pause in pauses():
            connection = self._storage.find_connection(connection_id)
            try:
                return self._dispatch(connection_id, connection, message)
            except StaleRecord:
                time.sleep(pause)
        raise StaleRecord(connection_id)

    def _dispatch(self, connection_id: str, connection: Connection | None, message: str) -> None:
        if connection is None:
            self._sender.send(connection_id, "Your session has expired. Please reconnect.")
            self._sender.close(connection_id)
        elif not connection.username:
            self._login(connection, message)
        elif message.startswith("/"):
            self._command(connection, message[1:])
        else:
            self._text(connection, message)

    def _login(self, connection: Connection, message: str) -> None:
        username = self._rename(connection, message)
        if username:
            self._reply(connection, f"Using nickname: {username}\nType /help for list of commands.")

    def _command(self, connection: Connection, message: str) -> None:
        word, *arguments = re.split(r"\s+", message)
        command = self._commands.get(word.lower())
        if command:
            command(connection, [argument for argument in arguments if argument])
        else:
            self._reply(connection, f"Unknown command: {word.lower()}")

    def _text(self, connection: Connection, message: str) -> None:
        line = f"{connection.username}: {message}"
        if connection.room is None:
            self._reply(connection, "Cannot send message if not in chatroom.")
        elif too_long := _too_long(line):
            self._reply(connection, too_long)
        else:
            # The index may not show the sender in the room yet; it hears its own line all the same.
            others = self._others(connection, connection.room)
            count(Texts=1)
            self._sender.broadcast(chain([connection.id], others), line)

    def _help(self, connection: Connection, _arguments: list[str]) -> None:
        self._reply(connection, HELP)

    def _nick(self, connection: Connection, arguments: list[str]) -> None:
        if not arguments:
            self._reply(connection, f"Current nickname: {connection.username}")
            return
        username = self._rename(connection, arguments[0])
        if username:
            self._reply(connection, f"Nickname is: {username}")
            self._announce(
                connection, connection.room, f"{connection.username} is now known as {username}."
            )

    def _join(self, connection: Connection, arguments: list[str]) -> None:
        if not arguments:
            self._reply(connection, "Usage: /join {chat_room_name}")
            return
        try:
            room = names.room(arguments[0])
        except InvalidName as invalid:
            self._reply(connection, str(invalid))
            return
        self._storage.set_room(connection.id, room, connection)
        self._say_left(connection)
        self._reply(connection, f'Joined chat room "{room}"')
        self._announce(connection, room, f"{connection.username} joined room.")

    def _room(self, connection: Connection, _arguments: list[str]) -> None:
        self._reply(
            connection,
            connection.room or "Not currently in a room. Type /join {room_name} to do so.",
        )

    def _list(self, connection: Connection, _arguments: list[str]) -> None:
        if connection.room is not None:
            self._reply_lines(connection, self._member_names(connection, connection.room))
        else:
            rooms = sorted(self._storage.list_rooms())
            self._reply_lines(
                connection,
                rooms or ["No chat rooms open. Type /join {room_name} to open one."],
            )

    def _quit(self, connection: Connection, _arguments: list[str]) -> None:
        if connection.room is not None:
            self._storage.remove_room(connection.id, connection.room, connection)
            self._say_left(connection)

    def _rename(self, connection: Connection, wish: str) -> str | None:
        """Give the connection the nickname it asks for, or tell it why not."""
        try:
            username = names.nickname(wish)
            self._storage.set_username(connection.id, connection.username, username, connection)
            return username
        except InvalidName as invalid:
            self._reply(connection, str(invalid))
        except NicknameTaken as taken:
            if self._sender.is_gone(taken.holder):
                self._sender.depart(taken.holder)
                self._storage.release_nickname(username, taken.holder)
                raise StaleRecord(connection.id) from None
            self._reply(connection, f"Nickname {username} is already in use.")
        return None

    def _member_names(self, connection: Connection, room: str) -> list[str]:
        """In the order in which they joined; the index may not show the latest, who asks, yet."""
        members = sorted(
            self._storage.iter_members(room), key=lambda m: (m.joined_at, m.connection_id)
        )
        listed = {member.connection_id: member.username for member in members}
        listed[connection.id] = connection.username
        return list(listed.values())

    def _say_left(self, connection: Connection) -> None:
        """Tell a connection that it has left its room, if it was in one, and those who stay."""
        if connection.room is not None:
            self._reply(connection, f'Left chat room "{connection.room}"')
            self._announce(connection, connection.room, f"{connection.username} left room.")

    def _announce(self, connection: Connection, room: str | None, line: str) -> None:
        """Tell everybody else in a room."""
        if room is not None:
            self._sender.broadcast(self._others(connection, room), line)

    def _others(self, connection: Connection, room: str) -> Iterator[str]:
        ids = self._storage.iter_connection_ids_by_room(room)
        return (other for other in ids if other != connection.id)

    def _reply(self, connection: Connection, line: str) -> None:
        self._sender.send(connection.id, _too_long(line) or line)

    def _reply_lines(self, connection: Connection, lines: Iterable[str]) -> None:
        """As many lines in a message as it can hold, in as many messages as that takes."""
        for message in _messages(lines):
            self._sender.send(connection.id, message)


def _well_formed(message: str) -> str:
    """The message with what UTF-8 cannot hold (lone surrogates, from JSON escapes) replaced."""
    return message.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _too_long(line: str) -> str | None:
    size = len(line.encode())
    if size <= MESSAGE_BYTES:
        return None
    return f"Message too long: {size} bytes, the limit is {MESSAGE_BYTES}."


def _messages(lines: Iterable[str]) -> Iterator[str]:
    message = ""
    for line in lines:
        longer = f"{message}\n{line}" if message else line
        if _too_long(longer):
            yield message
            longer = line
        message = longer
    yield message
