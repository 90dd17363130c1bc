"""Opens and removes connections: their rows, their claims, their places in the rooms' counts."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import invocation
from chalicelib.invocation import count, log
from chalicelib.storage.reads import Reads
from chalicelib.storage.rooms import Rooms
from chalicelib.storage.rows import LIFETIME_SECONDS, Connection, Item
from chalicelib.storage.transactions import (
    NicknameTaken,
    Refused,
    StaleRecord,
    Transactions,
    until_current,
)
from chalicelib.text import names

# A transaction holds 100 items (DynamoDB quotas), and a departure takes up to 3.
DEPARTURES = 33

# Connections removed before their departures are announced: 7 transactions, a fraction of a
# second. Each announcement costs up to 200 posts.
REMOVED_AT_ONCE = 7 * DEPARTURES

HANDSHAKE_SECONDS = 30  # API Gateway quotas: "Integration timeout", 29 s


class Membership:
    """Opens and removes connections. `Storage` has the promises."""

    def __init__(self, reads: Reads, transactions: Transactions, rooms: Rooms) -> None:
        self._reads = reads
        self._transactions = transactions
        self._rooms = rooms

    def open(self, new: Connection, now: int) -> Connection | None:
        """Write all rows of a connection with an account; returns the older one, now removed.

        The first attempt assumes that there is no older one; otherwise the refusal names it. Every
        attempt depends on the account's row, so the loser of a race is refused, and finds the
        winner.
        """
        older_id = new.id

        def attempt() -> Connection | None:
            nonlocal older_id
            older = self._reads.connection(older_id) if older_id != new.id else None
            if older is not None and older.expires_at <= now:
                older = None
            try:
                self._transactions.transact(self._arrival(new, now, older_id, older))
            except Refused as refused:
                if "account" in refused.found:
                    older_id = refused.found["account"]["connection_id"]
                elif "older row" not in refused.found:
                    raise _taken(refused.found["claim"], now) from None
                raise StaleRecord from None
            return older

        older = until_current(attempt)
        count(ConnectionsOpened=1, ConnectionsClosed=0 if older is None else 1)
        if older is not None:
            self._count_out([older])
        return older

    def remove(self, connection_id: str, now: int) -> Connection | None:
        found = self._reads.connection(connection_id)
        removed = self._remove([found], reads_again=True) if found else []
        if not removed or removed[0].expires_at <= now:
            return None
        self._count_out(removed)
        return removed[0]

    def remove_gone(self, connections: Iterable[Connection]) -> Iterator[list[Connection]]:
        pending = iter(connections)
        removed: list[Connection] = []
        while batch := list(islice(pending, DEPARTURES)):
            if invocation.is_ending():
                log.warning("no time to remove all connections that are gone")
                break
            try:
                removed += self._remove(batch)
            except (ClientError, BotoCoreError, StaleRecord):
                log.exception("gone connections could not be removed")
                break
            if len(removed) > REMOVED_AT_ONCE - DEPARTURES:
                yield self._count_out(removed)
                removed = []
        yield self._count_out(removed)

    def _remove(
        self, connections: list[Connection], *, reads_again: bool = False
    ) -> list[Connection]:
        """Remove all rows of at most `DEPARTURES` connections; returns those it removed. Without
        `reads_again`, a connection that was renamed meanwhile stays."""
        claimless: set[str] = set()

        def attempt() -> list[Connection]:
            nonlocal connections
            actions = {
                (each.id, what): action
                for each in connections
                for what, action in self._removal(each, each.id not in claimless)
            }
            try:
                if actions:
                    self._transactions.transact(actions)
            except Refused as refused:
                claimless.update(id for id, what in refused.found if what == "claim")
                current = [self._current(each, refused, reads_again) for each in connections]
                connections = [each for each in current if each]
                raise StaleRecord from None
            return connections

        removed = until_current(attempt)
        count(ConnectionsClosed=len(removed))
        return removed

    def _current(
        self, connection: Connection, refused: Refused, reads_again: bool
    ) -> Connection | None:
        """The connection as the refusal shows it; None if its row is missing and not read again."""
        found = refused.found.get((connection.id, "row"))
        if found is None:
            return connection
        if found:
            return replace(connection, room=found.get("room"))
        is_read = reads_again or not connection.nickname
        return self._reads.connection(connection.id) if is_read else None

    def _count_out(self, removed: list[Connection]) -> list[Connection]:
        for room, members in Counter(each.room for each in removed).items():
            if room is not None:
                self._rooms.count_out(room, members)
        return removed

    def _removal(self, connection: Connection, has_claim: bool) -> Iterator[tuple[str, Item]]:
        write = self._transactions
        yield "row", write.delete_row(connection)
        if connection.room is not None:
            yield "member", write.delete_member(connection)
        if connection.nickname and has_claim:
            yield "claim", write.release(connection)

    def _arrival(
        self, new: Connection, now: int, older_id: str, older: Connection | None
    ) -> dict[Any, Item]:
        write = self._transactions
        actions: dict[Any, Item] = {
            "row": write.put(new.row),
            "account": write.take_account(new, now, older_id),
            "claim": write.claim(new, now, older_id),
        }
        if older is not None:
            actions["older row"] = write.delete_row(older)
            if older.room is not None:
                actions["older member"] = write.delete_member(older)
            if names.claim(older.nickname) != names.claim(new.nickname):
                actions["older claim"] = write.release(older)
        return actions


def _taken(claim: Item, now: int) -> NicknameTaken:
    opened_at = int(claim["expires_at"]) - LIFETIME_SECONDS
    return NicknameTaken(claim["connection_id"], is_new=opened_at > now - HANDSHAKE_SECONDS)
