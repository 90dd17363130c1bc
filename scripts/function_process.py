"""What a function's process does besides running the function.

`ministack_server.py` puts this file's text into the script with which MiniStack starts such a
process, so it has the standard library and whatever the function's package brings.
"""

import os
import re
import sys
from collections.abc import Callable
from typing import Any

END_OF_LOG = "\0end of log\0"
ENDPOINT = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
API_GATEWAY = re.compile(r"https://(\w+)\.execute-api\.[^/]+/(\w+)/?")


def on_this_machine(url: str) -> str:
    """The emulator's address for one of API Gateway; any other as it is."""
    emulator = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}"
    api = API_GATEWAY.fullmatch(url)
    return f"{emulator}/_aws/execute-api/{api[1]}/{api[2]}" if api else url


def redirect_posts() -> None:
    """Before the function is imported: its posts to connections go to the emulator.

    boto3 ignores the variable where it is given an address, and Chalice gives it one.
    """
    if ENDPOINT in os.environ:
        os.environ[ENDPOINT] = on_this_machine(os.environ[ENDPOINT])
    try:
        from botocore.session import Session
    except ImportError:
        return
    create_client = Session.create_client

    def redirected(session: Any, *arguments: Any, **options: Any) -> Any:
        if options.get("endpoint_url"):
            options["endpoint_url"] = on_this_machine(options["endpoint_url"])
        return create_client(session, *arguments, **options)

    Session.create_client = redirected


def logged(handler: Callable[[Any, Any], Any], event: Any, context: Any) -> Any:
    """Calls the handler, and marks where its lines end."""
    try:
        return handler(event, context)
    finally:
        print(END_OF_LOG, file=sys.stderr, flush=True)
