"""The table's rows: their keys, and the records made from them.

| PK            | SK                    | attributes                      | meaning                |
|---------------|-----------------------|---------------------------------|------------------------|
| connection id | `username_{name}`     | room, account, expires_at       | an open connection     |
| connection id | `room_{room}`         | username, joined_at, expires_at | a member of the room   |
| `rooms`       | `open_{room}`         | members, expires_at             | the directory of rooms |
| `usernames`   | `taken_{folded name}` | connection_id, expires_at       | a nickname's holder    |
| `accounts`    | `account_{sub}`       | connection_id, expires_at       | an account's holder    |

Only a chat with sign-in has accounts. An account's row stays when its connection closes.

The index `ReverseLookup` swaps the two keys: its partition `room_{room}` lists the members. API
Gateway has always closed the connection before `expires_at` (Unix time in seconds). DynamoDB
deletes expired rows late, so every read ignores them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from chalicelib.text import names

CONNECTION_SECONDS = 2 * 60 * 60  # API Gateway quotas: "Connection duration for WebSocket API"
GRACE_SECONDS = 60  # for `$disconnect` to arrive, and for clock skew
LIFETIME_SECONDS = CONNECTION_SECONDS + GRACE_SECONDS

Item = dict[str, Any]


class Account(NamedTuple):
    """The person who connects, according to a valid token."""

    id: str  # the token's `sub`
    nickname: str


@dataclass(frozen=True)
class Connection:
    """A connection as stored in the table. It has no `nickname` before login, and the id of an
    `account` only with sign-in. Members read from a room lack `expires_at` and `account`: posts and
    removals need neither."""

    id: str
    nickname: str = ""
    room: str | None = None
    expires_at: int = 0
    account: str = ""

    @property
    def key(self) -> Item:
        return {"PK": self.id, "SK": f"username_{self.nickname}"}

    @property
    def row(self) -> Item:
        room = {} if self.room is None else {"room": self.room}
        account = {"account": self.account} if self.account else {}
        return {**self.key, "expires_at": self.expires_at, **room, **account}

    @property
    def member_key(self) -> Item:
        return {"PK": self.id, "SK": f"room_{self.room}"}

    def member_row(self, joined_at: int) -> Item:
        return {
            **self.member_key,
            "username": self.nickname,
            "joined_at": joined_at,
            "expires_at": self.expires_at,
        }

    @property
    def claim_row(self) -> Item:
        return {
            **claim_key(self.nickname),
            "connection_id": self.id,
            "expires_at": self.expires_at,
        }

    @property
    def account_row(self) -> Item:
        return {
            "PK": "accounts",
            "SK": f"account_{self.account}",
            "connection_id": self.id,
            "expires_at": self.expires_at,
        }


def connection(row: Item, expires_at: int) -> Connection:
    """Made from a `username_` row; `expires_at` is for the tutorial's rows, which have none."""
    expiry = int(row.get("expires_at", expires_at))
    account = row.get("account", "")
    return Connection(row["PK"], suffix(row["SK"]), row.get("room"), expiry, account)


def directory_key(room: str) -> Item:
    return {"PK": "rooms", "SK": f"open_{room}"}


def claim_key(nickname: str) -> Item:
    return {"PK": "usernames", "SK": f"taken_{names.claim(nickname)}"}


def suffix(sort_key: str) -> str:
    return sort_key.split("_", 1)[1]
