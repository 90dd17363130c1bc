"""`make chat`: websocket-client's wsdump, for people.

By itself, wsdump shows a close frame as an empty line, fails on the next line that is typed, and
ends before the replies to piped lines arrive.
"""

import functools
import os
import signal
import sys
import threading
from contextlib import suppress

import websocket
from websocket import _wsdump

from emulator.emulator import STACK
from emulator.user_pool import token_for
from scripts.address import chat_of, new_parser, refusal, run
from scripts.package import Failure

ERASE_LINE = "\r\033[K"
REPLIES_WITHIN = 10.0  # seconds
LAST_REPLIES_WITHIN = 1  # seconds after the end of a pipe, in which others may be heard


class Conversation(websocket.WebSocket):
    """Ends the program when the server ends the connection."""

    shown = threading.Event()

    def send(self, *arguments: object, **options: object) -> int:
        """Sends; after a line of a pipe, waits for the reply: frames may overtake each other.

        Ignores a broken connection: the receiving thread reports it.
        """
        self.shown.clear()
        sent = 0
        with suppress(websocket.WebSocketException, OSError):
            sent = int(super().send(*arguments, **options))  # type: ignore[arg-type]
        if not sys.stdin.isatty():
            self.shown.wait(REPLIES_WITHIN)
        return sent

    def recv_frame(self) -> websocket.ABNF:
        self.shown.set()  # the previous frame
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


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--as", dest="name", help="a person of `make run SIGN_IN=on`")
    arguments = parser.parse_args()
    chat = chat_of(arguments)
    url = chat.url
    if arguments.name:
        if chat.emulator is None:
            raise Failure("AS signs in to a chat of `make run SIGN_IN=on`, not to one elsewhere.")
        url += f"?token={token_for(chat.emulator, arguments.stack or STACK, arguments.name)}"
    websocket.create_connection = functools.partial(
        websocket.create_connection, class_=Conversation
    )
    sys.argv = ["wsdump", url]
    if not sys.stdin.isatty():
        sys.argv += ["--raw", "--eof-wait", str(LAST_REPLIES_WITHIN)]
    elif "token=" not in url:
        print("The first line that you type is your nickname.")
    try:
        _wsdump.main()
    except (websocket.WebSocketException, OSError) as error:
        hint = "; with `make run SIGN_IN=on`: make chat AS=John"
        raise Failure(f"No connection to {chat.url}: {refusal(error, hint)}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    run(main)
