"""The chat, as `app.py` wires it together."""

from chalicelib.aws import new_session
from chalicelib.handler import Handler
from chalicelib.invocation import in_invocation, write_json
from chalicelib.sender import Sender
from chalicelib.sign_in.authorizer import Authorizer, account_of
from chalicelib.storage import Storage

__all__ = [
    "Authorizer",
    "Handler",
    "Sender",
    "Storage",
    "account_of",
    "in_invocation",
    "new_session",
    "write_json",
]
