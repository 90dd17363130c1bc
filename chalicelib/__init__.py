"""The chat, as `app.py` wires it together."""

from chalicelib.authorizer import Authorizer, account_of
from chalicelib.aws import keep_deadline, new_session
from chalicelib.handler import Handler
from chalicelib.log import log_invocation, write_json
from chalicelib.sender import Sender
from chalicelib.storage import Storage

__all__ = [
    "Authorizer",
    "Handler",
    "Sender",
    "Storage",
    "account_of",
    "keep_deadline",
    "log_invocation",
    "new_session",
    "write_json",
]
