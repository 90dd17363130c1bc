"""Opens the connections of accounts; each takes the place of its account's older one."""

import time
from collections.abc import Callable

from chalicelib import names
from chalicelib.rows import LIFETIME_SECONDS, Connection, Item
from chalicelib.transactions import Conflict, NicknameTaken, Refused, Transactions, pauses

HANDSHAKE_SECONDS = 30  # API Gateway quotas: "Integration timeout", 29 s


class Arrivals:
    """Opens connections. `Storage.sign_in` has the promises."""

    def __init__(
        self, transactions: Transactions, find: Callable[[str], Connection | None]
    ) -> None:
        self._transactions = transactions
        self._find = find

    def open(self, new: Connection, now: int) -> Connection | None:
        """Write all rows of a connection; returns the older one, which it has removed.

        The first attempt assumes that there is none; if there is one, the refusal names it. Every
        attempt depends on the account's row, so of two that race one is refused, and finds the
        other.
        """
        older_id = new.id
        for pause in pauses():
            older = self._find(older_id) if older_id != new.id else None
            try:
                self._transactions.transact(self._actions(new, now, older_id, older))
                return older
            except Refused as refused:
                if "account" in refused.found:
                    older_id = refused.found["account"]["connection_id"]["S"]
                elif "older row" not in refused.found:
                    raise _taken(refused.found["claim"], now) from None
            time.sleep(pause)
        raise Conflict

    def _actions(
        self, new: Connection, now: int, older_id: str, older: Connection | None
    ) -> dict[str, Item]:
        write = self._transactions
        actions = {
            "row": write.put(new.row),
            "account": write.take_account(new, now, older_id),
            "claim": write.claim(new, now, older_id),
        }
        if older is not None:
            actions["older row"] = write.delete_row(older)
            if older.room is not None:
                actions["older member"] = write.delete_member(older)
            if names.claim(older.username) != names.claim(new.username):
                actions["older claim"] = write.release(older)
        return actions


def _taken(claim: Item, now: int) -> NicknameTaken:
    opened_at = int(claim["expires_at"]["N"]) - LIFETIME_SECONDS
    return NicknameTaken(claim["connection_id"]["S"], is_new=opened_at > now - HANDSHAKE_SECONDS)
