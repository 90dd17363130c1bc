"""What `app.py` wires together: the table, the way to the clients, and the rules of the chat."""

from chalicelib.handler import Handler
from chalicelib.log import log_invocation, write_json
from chalicelib.sender import Sender, Session
from chalicelib.storage import Storage

__all__ = ["Handler", "Sender", "Session", "Storage", "log_invocation", "write_json"]
