"""Runs MiniStack 1.5.33 with all patches until its parent, `emulator.py`, ends.

The patches here are for its credentials and user pools. All patches change MiniStack's internals;
the exact version in requirements/emulator.txt makes this safe.

The arguments are the directory to remove at the end, by which `ps` tells emulators apart, and the
descriptor that holds the lock.
"""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

from ministack import app
from ministack.core import iam_evaluator

from emulator import api_gateway, cloudformation, functions, resources
from emulator.gate import Gate, without_cors
from emulator.processes import clear_up


def patch(output: TextIO) -> None:
    """Applies all patches; the functions' logs are printed to `output`."""
    # It answered pages of any origin, under any host name, and many requests without a signature.
    app.app = Gate(app.app, int(app._resolve_port()))
    app._asgi_header_list = partial(without_cors, app._asgi_header_list)

    # It took "test", an empty key and every account's number for the owner's key, and checked no
    # signature made with one of these.
    iam_evaluator.is_root_access_key = lambda key: key == os.environ["AWS_ACCESS_KEY_ID"]
    iam_evaluator._is_root_key = lambda key: False

    # It gave the keys of user pools another address than AWS does ("Verifying JSON web tokens").
    app._handle_cognito_get_request = partial(discover, app._handle_cognito_get_request)

    functions.apply(output)
    cloudformation.apply()
    resources.apply()
    api_gateway.apply()


async def discover(original: Any, method: str, path: str, *arguments: Any) -> Any:
    """Cognito's answer; a pool's discovery document gives AWS's address for the pool's keys."""
    answer = await original(method, path, *arguments)
    if answer is None or not path.endswith("/openid-configuration"):
        return answer
    status, headers, body = answer
    document = json.loads(body)
    document["jwks_uri"] = f"{document['issuer']}/.well-known/jwks.json"
    return status, headers, json.dumps(document).encode()


def end_with_parent(directory: str, lock: str) -> None:
    """Waits until `emulator.py` closes standard input or ends, then ends this whole process group.

    Connected clients get a close frame first.
    """
    os.read(0, 1)
    try:
        api_gateway.say_goodbye()
    finally:
        with suppress(OSError):  # of too few file descriptors, or of too little memory
            clear_up(os.getpgrp(), directory, int(lock)).wait()
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # may write to any terminal, in the background
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for the functions' processes
    # Standard output is for the functions' logs; MiniStack's own output goes to standard error.
    functions_output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    threading.Thread(target=end_with_parent, args=sys.argv[1:], daemon=True).start()
    patch(functions_output)
    os.environ["MINISTACK_EDITION"] = str(os.getpid())  # `emulator.py` reads it in the health check
    sys.argv = ["ministack"]
    app.main()
