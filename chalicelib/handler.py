"""Answers connects, frames and disconnects. A frame is a nickname, a command or a text."""

from itertools import chain

from chalicelib.announcer import Announcer, too_long
from chalicelib.commands import Commands
from chalicelib.invocation import count, log
from chalicelib.pace import Pace, Verdict, weight
from chalicelib.sender import Sender
from chalicelib.storage import (
    Account,
    Connection,
    NicknameTaken,
    StaleRecord,
    Storage,
    until_current,
)
from chalicelib.text import texts

ATTEMPTS = 5  # to answer a frame while others keep changing its connection

TOO_FAST = "You are sending too fast. Wait a moment."
ELSEWHERE = "You have connected from elsewhere."


class Handler:
    """The rules of the chat. A frame changes the table at most once, then gets its replies."""

    def __init__(self, storage: Storage, sender: Sender, pace: Pace | None = None) -> None:
        self._storage = storage
        self._sender = sender
        self._pace = pace or Pace()
        self._announcer = Announcer(storage, sender)
        self._commands = Commands(storage, self._announcer)

    # Events

    def connect(self, connection_id: str, account: Account | None = None) -> bool:
        """Record an open connection; returns whether it may stay open.

        Without an account, it always may; this costs 1 request. With an account, it replaces the
        account's older connection and takes the account's nickname; it may not stay if somebody
        else has a nickname that looks the same. For the cost, see `Storage.sign_in`. Raises
        DynamoDB's errors, and `StaleRecord` if too many connections of the account race.
        """
        if account is None:
            self._storage.create_connection(connection_id)
            return True
        try:
            older = self._storage.sign_in(connection_id, account)
        except NicknameTaken as taken:
            if not taken.is_new and self._announcer.frees(account.nickname, taken.holder):
                return self.connect(connection_id, account)
            log.warning("the nickname of an account is in use")
            return False
        if older is not None:
            self._announcer.end(older, ELSEWHERE)
        return True

    def handle(self, connection_id: str, message: str, account: Account | None = None) -> None:
        """Answer a frame, whatever its content. Raises nothing: failures are logged, and the sender
        is told that something went wrong.

        `account` is the one that the connection signed in with, if any. If the account has since
        connected from elsewhere, the sender is told so.

        A text costs 2 requests to DynamoDB, both reads (1 more for each further MB of the room),
        and a post for each member. A command costs 1 read, plus the cost of its `Storage` method. A
        frame that comes too fast costs one post; closing adds one request.

        If other frames keep changing the connection, up to 5 attempts are made. If others keep
        changing the same rows, each attempt retries for up to 3 s. No retry begins in the last
        second before the invocation's deadline, which limits the time of a frame.
        """
        try:
            if self._keeps_pace(connection_id, message):
                self._answer(connection_id, texts.without_surrogates(message), account)
        except Exception:
            log.exception("a frame could not be handled")
            count(FramesFailed=1)
            self._apologise(connection_id)

    def disconnect(self, connection_id: str) -> None:
        """Handle the close of a connection: see `Announcer.remove`."""
        self._announcer.remove(connection_id)

    # Frames

    def _keeps_pace(self, connection_id: str, message: str) -> bool:
        """Whether to answer a frame. If not, tells the sender why, but not at every frame."""
        match self._pace.judge(connection_id, weight(message)):
            case Verdict.ANSWER:
                return True
            case Verdict.WARN:
                self._reply(Connection(connection_id), TOO_FAST)
            case Verdict.CLOSE:
                line = "You have been disconnected for sending too fast."
                self._reply(Connection(connection_id), line)
                self._sender.close(connection_id)
                log.warning("closed a connection that sent too fast")
        return False

    def _answer(self, connection_id: str, message: str, account: Account | None) -> None:
        """Act on the current connection; retry if another frame has changed it meanwhile. Of frames
        that race, one always succeeds, so only many at once use up the attempts."""
        try:
            until_current(lambda: self._handle_frame(connection_id, message, account), ATTEMPTS)
        except StaleRecord:
            log.warning("a frame met too many others of its connection")
            self._reply(Connection(connection_id), TOO_FAST)

    def _handle_frame(self, connection_id: str, message: str, account: Account | None) -> None:
        connection = self._storage.find_connection(connection_id)
        if connection is None:
            is_replaced = account and self._storage.is_replaced(connection_id, account)
            expired = "Your session has expired. Please reconnect."
            self._sender.send(connection_id, ELSEWHERE if is_replaced else expired)
            self._sender.close(connection_id)
        elif not connection.nickname:
            self._handle_login_message(connection, message)
        elif message.startswith("/"):
            self._commands.run(connection, message[1:])
        else:
            self._handle_text(connection, message)

    def _handle_login_message(self, connection: Connection, message: str) -> None:
        named = self._commands.rename(connection, message)
        if named is not None:
            self._reply(
                named, f"Using nickname: {named.nickname}\nType /help for list of commands."
            )

    def _handle_text(self, connection: Connection, message: str) -> None:
        line = texts.repeated(message, f"{connection.nickname}: ")
        if connection.room is None:
            self._reply(connection, "Cannot send message if not in chatroom.")
        elif texts.is_too_long(line):
            self._reply(connection, too_long(line))
        else:
            # The index may not list the sender yet; it hears its own line all the same.
            others = (
                member
                for member in self._storage.iter_members(connection.room)
                if member.id != connection.id
            )
            count(Texts=1)
            self._announcer.post(chain([connection], others), line)

    def _reply(self, connection: Connection, line: str) -> None:
        self._announcer.reply(connection, line)

    def _apologise(self, connection_id: str) -> None:
        try:
            self._sender.send(connection_id, "Something went wrong. Please try again.")
        except Exception:
            log.exception("the sender could not be told of the failure")
