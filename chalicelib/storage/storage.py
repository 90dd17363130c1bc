"""Reads and writes of the table, and why they are safe together. `rows.py` describes the rows.

* A connection's `username_` row alone defines it: the name is in the key, the room beside it, so
  both are read and written as one item. Every change is a transaction that succeeds only if the row
  is still as it was read; otherwise it raises `StaleRecord`, and nothing has changed. So two frames
  of one connection take effect one after the other, however they interleave.
* The member's row and the claim change in the same transaction, so they never disagree.
* The directory's counts change outside: `rooms.py` says why, and how they stay right.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from chalicelib import aws
from chalicelib.invocation import count, log
from chalicelib.storage.membership import Membership
from chalicelib.storage.reads import Reads
from chalicelib.storage.rooms import Rooms
from chalicelib.storage.rows import LIFETIME_SECONDS, Account, Connection
from chalicelib.storage.transactions import (
    Conflict,
    NicknameTaken,
    Refused,
    StaleRecord,
    Transactions,
    has_written_nothing,
)
from chalicelib.text import names


class Storage:
    """Reads and writes of the table. Costs are in requests to DynamoDB.

    A method that takes a `Connection` writes only if the row is still as it was read; otherwise it
    raises `StaleRecord` (optimistic locking). It returns the connection as it is now. Every method
    propagates botocore's `ClientError` and `BotoCoreError`, after the client's retries (of
    throttling, a 500, a lost connection).
    """

    def __init__(self, table: Any = None, *, clock: Callable[[], float] = time.time) -> None:
        """`table` is boto3's `Table`; by default the one that TABLE names, opened at first use.
        `clock` gives Unix time in seconds."""
        self._given_table = table
        self._clock = clock

    @classmethod
    def from_env(cls) -> "Storage":
        """The table that the environment variable TABLE names.

        Nothing is looked up before the first use, so importing the app needs no region, credentials
        or network. The first use raises `RuntimeError` if TABLE is missing or empty. In Lambda, the
        table is opened and read while the function starts, with a whole CPU. A failure then is
        logged; the first frame meets it again.
        """
        storage = cls()
        if aws.is_starting_for_the_chat():
            try:
                storage._reads.open()
            except Exception:
                log.exception("the table could not be read while the function started")
        return storage

    @cached_property
    def table(self) -> Any:
        if self._given_table is not None:
            return self._given_table
        name = aws.required("TABLE", "the DynamoDB table")
        return aws.new_session().resource("dynamodb").Table(name)

    @cached_property
    def _rooms(self) -> Rooms:
        return Rooms(self.table, self._clock)

    @cached_property
    def _reads(self) -> Reads:
        return Reads(self.table, self._clock)

    @cached_property
    def _transactions(self) -> Transactions:
        return Transactions(self.table)

    @cached_property
    def _membership(self) -> Membership:
        return Membership(self._reads, self._transactions, self._rooms)

    # Connections

    def create_connection(self, connection_id: str) -> None:
        """Record a connection that has opened and has no nickname yet. 1 request."""
        self.table.put_item(Item=Connection(connection_id, expires_at=self._expiry()).row)
        count(ConnectionsOpened=1)

    def sign_in(self, connection_id: str, account: Account) -> Connection | None:
        """Record a connection that has opened, with its account's nickname.

        Returns the account's older connection as it was, if one is open. The same transaction
        removes the older one, so of connections that race, one is left. The directory then counts
        the older one out of its room.

        1 transaction for an account that has not connected for 2 hours; otherwise 1 transaction
        more, 1 read (2 if the older one has closed), and 1 or 2 writes for a room. Raises
        `StaleRecord`, or `NicknameTaken` if another account has the nickname; then nothing has
        changed.
        """
        new = Connection(connection_id, account.nickname, None, self._expiry(), account.id)
        return self._membership.open(new, int(self._clock()))

    def find_connection(self, connection_id: str) -> Connection | None:
        """The connection as it is now, or None if it is unknown or expired.

        1 request, a consistent read; 2 if the row is missing or found twice. A query may see half
        of a rename, since only reads of single items are isolated from transactions (Amazon
        DynamoDB transactions: isolation levels); the second read comes after it.
        """
        found = self._reads.connection(connection_id)
        return found if found and found.expires_at > self._clock() else None

    def is_replaced(self, connection_id: str, account: Account) -> bool:
        """Whether an account has connected again since this connection opened. 1 request."""
        return self._reads.holder(account.id) not in (None, connection_id)

    def delete_connection(self, connection_id: str) -> Connection | None:
        """Remove a connection: its nickname becomes free, and its room loses a member.

        Returns the connection as it was; None if it had expired, or another caller removed it.
        1 read, then as `delete_gone`.
        """
        return self._membership.remove(connection_id, int(self._clock()))

    def delete_gone(self, connections: Iterable[Connection]) -> Iterator[list[Connection]]:
        """Remove gone connections, given as they were read; yields lists of up to 231 removed ones.

        Each list is removed when it is taken, so that its departures can be announced before the
        next. 1 transaction for each 33 connections, and 1 write for each room; 1 more if it is then
        empty. A refusal returns the current rows, so we retry without reading. A connection that
        was renamed since it was read stays; the next reader of its room removes it. A failure or a
        near deadline is logged, and ends the removal.
        """
        return self._membership.remove_gone(connections)

    # Nicknames

    def rename(self, connection: Connection, nickname: str) -> Connection:
        """Give a connection a nickname, claim it, and release the old one. 1 transaction. Raises
        `NicknameTaken` if another connection holds it, or `StaleRecord`; then nothing has changed.
        """
        if nickname == connection.nickname:
            return connection
        renamed = replace(connection, nickname=nickname)
        write = self._transactions
        actions = {
            "old row": write.delete_row(connection),
            "row": write.put(renamed.row),
            "claim": write.claim(renamed, int(self._clock())),
        }
        if connection.nickname and names.claim(connection.nickname) != names.claim(nickname):
            actions["old claim"] = write.release(connection)
        if renamed.room is not None:
            actions["member"] = write.rename_member(renamed)
        try:
            write.transact(actions)
        except Refused as refused:
            if "old row" in refused.found or "claim" not in refused.found:
                raise StaleRecord(connection.id) from None
            raise NicknameTaken(refused.found["claim"]["connection_id"]) from None
        return renamed

    def release_nickname(self, nickname: str, holder: str) -> None:
        """Free a nickname if `holder`, a connection that is gone, still has it. 1 transaction."""
        write = self._transactions
        try:
            write.transact({"claim": write.release(Connection(holder, nickname))})
        except Refused:
            pass  # somebody else's by now

    # Rooms

    def iter_rooms(self, limit: int | None = None) -> Iterator[str]:
        """The names of the rooms that have members, sorted, read page by page as they are taken.

        1 request for each MB of the directory, or `limit` rows: set it to the number you need.
        """
        return self._reads.rooms(limit)

    def enter(self, connection: Connection, room: str) -> Connection:
        """Move a connection into a room; if it is already there, to the end of the list.

        1 write and 1 transaction; 1 or 2 more writes if it was in another room. Raises
        `StaleRecord`; then it has not moved.
        """
        write = self._transactions
        moved = replace(connection, room=room)
        comes_in = connection.room != room
        actions = {
            "row": write.replace_row(connection, moved),
            "member": write.put(moved.member_row(joined_at=int(self._clock() * 1_000_000))),
        }
        if comes_in and connection.room is not None:
            actions["old member"] = write.delete_member(connection)
        if comes_in:
            self._rooms.count_in(room)
        try:
            write.transact(actions)
        except Refused:
            if comes_in:
                self._rooms.count_out(room)
            raise StaleRecord(connection.id) from None
        except (ClientError, Conflict) as error:
            if comes_in and has_written_nothing(error):
                self._rooms.count_out(room)
            raise
        if comes_in and connection.room is not None:
            self._rooms.count_out(connection.room)
        return moved

    def leave(self, connection: Connection) -> Connection:
        """Take a connection out of its room, if it is in one. 1 transaction and 1 write; 1 more
        write if it was the last member. Raises `StaleRecord`; then it has not moved."""
        if connection.room is None:
            return connection
        write = self._transactions
        outside = replace(connection, room=None)
        try:
            write.transact(
                {
                    "row": write.replace_row(connection, outside),
                    "member": write.delete_member(connection),
                }
            )
        except Refused:
            raise StaleRecord(connection.id) from None
        self._rooms.count_out(connection.room)
        return outside

    def iter_members(self, room: str, limit: int | None = None) -> Iterator[Connection]:
        """A room's members in no particular order, read page by page as they are taken.

        1 request for each MB of them, or `limit` rows: set it to the number you need. The index is
        eventually consistent: for a moment it may lack a new member, or list a former one.
        """
        rows = self._reads.members(room, "PK, username", limit)
        return (Connection(row["PK"], row.get("username", ""), room) for row in rows)

    def list_members(self, room: str) -> list[Connection]:
        """A room's members in the order in which they joined, otherwise as `iter_members`."""
        rows = self._reads.members(room, "PK, username, joined_at")
        in_order = sorted(rows, key=lambda row: (row.get("joined_at", 0), row["PK"]))
        return [Connection(row["PK"], row.get("username", ""), room) for row in in_order]

    # The tutorial's names: those that write read the connection first (1 more request)

    def set_username(self, connection_id: str, old_name: str, username: str) -> None:
        """`rename`; also raises `StaleRecord` if the connection is not called `old_name`."""
        found = self._found(connection_id)
        if found.nickname != old_name:
            raise StaleRecord(connection_id)
        self.rename(found, username)

    def list_rooms(self) -> set[str]:
        """The names of `iter_rooms`."""
        return set(self.iter_rooms())

    def set_room(self, connection_id: str, room: str) -> None:
        """`enter`; also raises `StaleRecord` if the connection is unknown."""
        self.enter(self._found(connection_id), room)

    def remove_room(self, connection_id: str, room: str) -> None:
        """`leave`, if the connection is in this room."""
        found = self.find_connection(connection_id)
        if found is not None and found.room == room:
            self.leave(found)

    def get_connection_ids_by_room(self, room: str) -> list[str]:
        """The ids of `iter_members`."""
        return [each.id for each in self.iter_members(room)]

    def get_record_by_connection(self, connection_id: str) -> dict[str, str]:
        """`username`, empty before login, and `room`, if any; empty for an unknown connection."""
        found = self.find_connection(connection_id)
        if found is None:
            return {}
        return {"username": found.nickname} | ({"room": found.room} if found.room else {})

    def _found(self, connection_id: str) -> Connection:
        found = self.find_connection(connection_id)
        if found is None:
            raise StaleRecord(connection_id)
        return found

    def _expiry(self) -> int:
        return int(self._clock()) + LIFETIME_SECONDS
