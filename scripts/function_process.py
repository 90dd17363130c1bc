"""What a function's process does besides running the function.

`ministack_server.py` puts this file's text into the script with which MiniStack starts such a
process, so it has the standard library and whatever the function's package brings.
"""

import sys
from collections.abc import Callable
from typing import Any

END_OF_LOG = "\0end of log\0"


def logged(handler: Callable[[Any, Any], Any], event: Any, context: Any) -> Any:
    """Calls the handler, and marks where its lines end."""
    try:
        return handler(event, context)
    finally:
        print(END_OF_LOG, file=sys.stderr, flush=True)
