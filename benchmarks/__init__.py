"""Measures how fast a room hears a line. This file is the code shared by the cases."""

import ssl
from collections.abc import Callable, Iterator

MESSAGE = "x" * 60
REGION = "eu-west-1"

Broadcast = Callable[[Iterator[str]], int]  # from ids to the number delivered


def tls_context(authority: str | None) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=authority) if authority else None
