"""`make chat`: websocket-client's wsdump, made to say why the connection ended.

By itself, wsdump shows a close frame as an empty line, and fails on the next line that is typed.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys

import websocket
from websocket import _wsdump

from emulator.emulator import Failure
from scripts.address import add_arguments, address

ERASE_LINE = "\r\033[K"


class Conversation(websocket.WebSocket):
    """Ends the program when the server ends the connection."""

    def recv_frame(self) -> websocket.ABNF:
        try:
            frame = super().recv_frame()  # type: ignore[no-untyped-call]
        except (websocket.WebSocketException, OSError) as error:
            end(f"the connection broke: {error}")
        if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(frame.data[:2], "big")
            end(f"{frame.data[2:].decode(errors='replace') or 'no reason given'} (code {code})")
        return frame


def end(reason: str) -> None:
    """Ends the program from the receiving thread: only a signal interrupts input()."""
    print(f"{ERASE_LINE}Disconnected by the server: {reason}", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit()  # this thread


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    try:
        url = address(parser.parse_args())
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    websocket.create_connection = functools.partial(
        websocket.create_connection, class_=Conversation
    )
    sys.argv = ["wsdump", url]
    try:
        _wsdump.main()
    except (websocket.WebSocketException, OSError) as error:
        print(f"No connection to {url}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
