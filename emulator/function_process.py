"""Makes MiniStack 1.5.33's process of a function like Lambda's: its libraries, addresses and log.

`functions.py` inserts this file's text into MiniStack's script for such a process, so this file can
import only the standard library and the function's own package.
"""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

END_OF_LOG = "\0end of log\0"
ENDPOINT = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
COGNITO = re.compile(r"cognito-idp\.[\w-]+\.amazonaws\.com")
API_GATEWAY = re.compile(r"^https://(\w+)\.execute-api\.[^/]+/(\w+)(/$)?")


def hide_other_libraries() -> None:
    """Leaves the function the standard library and its own package, as on Lambda.

    Lambda has boto3 as well; here, the package has to contain it.
    """
    sys.path[:] = [path for path in sys.path if not path.endswith("site-packages")]


def on_this_machine(url: str) -> str:
    """A URL of API Gateway, moved to the emulator; any other unchanged."""
    emulator = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}"
    return API_GATEWAY.sub(rf"{emulator}/_aws/execute-api/\1/\2", url)


def redirect_posts() -> None:
    """Sends the function's posts to the emulator.

    To be called when `sys.path` has the package, but before the function is imported. `ENDPOINT`
    alone is not enough: Chalice gives boto3 an address, which takes precedence.
    """

    def redirect(params: dict[str, Any], **_: object) -> None:
        params["url"] = on_this_machine(params["url"])

    if ENDPOINT in os.environ:
        os.environ[ENDPOINT] = on_this_machine(os.environ[ENDPOINT])
    with suppress(ImportError):
        from botocore.handlers import BUILTIN_HANDLERS

        BUILTIN_HANDLERS.append(("before-call.apigatewaymanagementapi", redirect))


def redirect_issuers() -> None:
    """Sends requests to user pools to the emulator; all others stay as they are."""
    connect = HTTPSConnection.connect

    def connect_here(connection: HTTPSConnection) -> None:
        if not COGNITO.fullmatch(connection.host):
            return connect(connection)
        connection.host, connection.port = "127.0.0.1", int(os.environ["GATEWAY_PORT"])
        HTTPConnection.connect(connection)

    HTTPSConnection.connect = connect_here  # type: ignore[method-assign, assignment]


def logged(handler: Callable[[Any, Any], Any], event: Any, context: Any) -> Any:
    """Calls the handler, and marks the end of its log."""
    try:
        return handler(event, context)
    finally:
        print(END_OF_LOG, file=sys.stderr, flush=True)
