"""Removes connections: their rows, their claims, and their places in the rooms' counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import aws
from chalicelib.log import log
from chalicelib.metrics import count
from chalicelib.rooms import Rooms
from chalicelib.rows import Connection, Item
from chalicelib.transactions import REST_SECONDS, Refused, StaleRecord, Transactions, pauses

# A transaction holds 100 items (DynamoDB quotas), and a departure takes up to 3.
DEPARTURES = 33


class Departures:
    """Removes connections. `Storage.delete_connections` has the promises."""

    def __init__(
        self,
        transactions: Transactions,
        rooms: Rooms,
        find: Callable[[str], Connection | None],
    ) -> None:
        self._transactions = transactions
        self._rooms = rooms
        self._find = find

    def remove_all(self, connections: Iterable[Connection]) -> list[Connection]:
        """Remove any number, and count them out of their rooms."""
        pending = iter(connections)
        removed: list[Connection] = []
        while batch := list(islice(pending, DEPARTURES)):
            if aws.seconds_left() < REST_SECONDS:
                log.warning("no time to remove all connections that are gone")
                break
            try:
                removed += self.remove(batch)
            except (ClientError, BotoCoreError, StaleRecord):
                log.exception("gone connections could not be removed")
                break
        self.count_out(removed)
        return removed

    def remove(self, connections: list[Connection]) -> list[Connection]:
        """Remove all rows of at most `DEPARTURES` connections; returns those it removed."""
        claimless: set[str] = set()
        for pause in pauses():
            actions = {
                (each.id, what): action
                for each in connections
                for what, action in self._removal(each, each.id not in claimless)
            }
            if not actions:
                return []
            try:
                self._transactions.transact(actions)
                count(ConnectionsClosed=len(connections))
                return connections
            except Refused as refused:
                claimless |= {id for id, what in refused.found if what == "claim"}
                connections = [
                    current for each in connections if (current := self._current(each, refused))
                ]
            time.sleep(pause)
        raise StaleRecord

    def count_out(self, removed: list[Connection]) -> None:
        for room, members in Counter(each.room for each in removed).items():
            if room is not None:
                self._rooms.count_out(room, members)

    def _removal(self, connection: Connection, has_claim: bool) -> Iterator[tuple[str, Item]]:
        write = self._transactions
        yield "row", write.delete_row(connection)
        if connection.room is not None:
            yield "member", write.delete_member(connection)
        if connection.username and has_claim:
            yield "claim", write.release(connection)

    def _current(self, connection: Connection, refused: Refused) -> Connection | None:
        """The connection as the refusal shows it, or None if its row is missing."""
        found = refused.found.get((connection.id, "row"))
        if found is None:
            return connection
        if found:
            return replace(connection, room=found["room"]["S"] if "room" in found else None)
        return None if connection.username else self._find(connection.id)
