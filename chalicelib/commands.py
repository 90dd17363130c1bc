"""The commands: frames that begin with `/`, from people with a nickname."""

import re
from collections.abc import Callable
from itertools import islice

from chalicelib.announcer import Announcer
from chalicelib.storage import Connection, NicknameTaken, StaleRecord, Storage
from chalicelib.text import names, texts

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

Command = Callable[[Connection, list[str]], None]


class Commands:
    """Each command gets the connection as it was read, and its arguments. For the cost, and for
    `StaleRecord`, see the method of `Storage` that it calls."""

    def __init__(self, storage: Storage, announcer: Announcer) -> None:
        self._storage = storage
        self._announcer = announcer
        self._table: dict[str, Command] = {
            "help": self._help,
            "nick": self._nick,
            "join": self._join,
            "room": self._room,
            "ls": self._list,
            "quit": self._quit,
        }

    def run(self, connection: Connection, message: str) -> None:
        """Carry out a command, given without its `/`."""
        word, *arguments = re.split(r"\s+", message)
        command = self._table.get(word.lower())
        if command:
            command(connection, [argument for argument in arguments if argument])
        else:
            self._reply(connection, texts.repeated(word.lower(), "Unknown command: "))

    def rename(self, connection: Connection, wish: str) -> Connection | None:
        """Give the connection the nickname it asks for, or tell it why not."""
        try:
            nickname = names.nickname(wish)
            return self._storage.rename(connection, nickname)
        except names.InvalidName as invalid:
            self._reply(connection, str(invalid))
        except NicknameTaken as taken:
            if self._announcer.frees(nickname, taken.holder):
                raise StaleRecord(connection.id) from None
            self._reply(connection, f"Nickname {nickname} is already in use.")
        return None

    def _help(self, connection: Connection, _arguments: list[str]) -> None:
        self._reply(connection, HELP)

    def _nick(self, connection: Connection, arguments: list[str]) -> None:
        if not arguments:
            self._reply(connection, f"Current nickname: {connection.nickname}")
            return
        if connection.account:
            self._reply(connection, "Your nickname comes from your account.")
            return
        renamed = self.rename(connection, arguments[0])
        if renamed is not None:
            self._reply(renamed, f"Nickname is: {renamed.nickname}")
            line = f"{connection.nickname} is now known as {renamed.nickname}."
            self._announcer.announce(renamed, renamed.room, line)

    def _join(self, connection: Connection, arguments: list[str]) -> None:
        if not arguments:
            self._reply(connection, "Usage: /join {chat_room_name}")
            return
        try:
            room = names.room(arguments[0])
        except names.InvalidName as invalid:
            self._reply(connection, str(invalid))
            return
        moved = self._storage.enter(connection, room)
        self._say_left(moved, connection.room)
        self._reply(moved, f'Joined chat room "{room}"')
        self._announcer.announce(moved, room, f"{moved.nickname} joined room.")

    def _room(self, connection: Connection, _arguments: list[str]) -> None:
        outside = "Not currently in a room. Type /join {room_name} to do so."
        self._reply(connection, connection.room or outside)

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

    def _reply(self, connection: Connection, line: str) -> None:
        self._announcer.reply(connection, line)

    def _say_left(self, connection: Connection, room: str | None) -> None:
        """Tell a connection, and those who stay, that it has left its room, if it was in one."""
        if room is not None:
            self._reply(connection, f'Left chat room "{room}"')
            self._announcer.announce(connection, room, f"{connection.nickname} left room.")

    def _member_names(self, connection: Connection, room: str) -> list[str]:
        """In the order of joining, with the asker, whom the index may not list yet."""
        listed = {member.id: member.nickname for member in self._storage.list_members(room)}
        listed[connection.id] = connection.nickname
        return list(listed.values())

    def _room_names(self) -> list[str]:
        """The first `MOST_ROOMS`, so that a list costs little however many are open."""
        rooms = list(islice(self._storage.iter_rooms(MOST_ROOMS + 1), MOST_ROOMS + 1))
        if len(rooms) > MOST_ROOMS:
            rooms[MOST_ROOMS:] = ["... and more rooms."]
        return rooms
