"""The table: its rows, how they are read and written, and why that is safe.

- `storage`: `Storage`, which the rest of the chat uses, and why its writes are safe together;
- `membership`: opens and removes connections, one or many;
- `rooms`: counts the members of the rooms;
- `reads`, `transactions`: the requests to DynamoDB;
- `rows`: the kinds of rows, with their keys.
"""

from chalicelib.storage.rows import Account, Connection
from chalicelib.storage.storage import Storage
from chalicelib.storage.transactions import Conflict, NicknameTaken, StaleRecord, until_current

__all__ = [
    "Account",
    "Conflict",
    "Connection",
    "NicknameTaken",
    "StaleRecord",
    "Storage",
    "until_current",
]
