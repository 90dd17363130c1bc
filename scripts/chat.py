"""`make chat`: websocket-client's wsdump, for people.

By itself, wsdump shows a close frame as an empty line, fails on the next line that is typed, and
ends before the replies to piped lines arrive.
"""

import functools
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import websocket
from websocket import ABNF, _wsdump

from chalicelib.pace import BURST, RATE, weight
from emulator.emulator import STACK
from emulator.user_pool import token_for
from scripts import Failure
from scripts.address import chat_of, new_parser, refusal, run

ERASE_LINE = "\r\033[K"
REPLIES_WITHIN = 10.0  # seconds
LAST_REPLIES_WITHIN = 1  # seconds after the end of a pipe, in which others may be heard
AT_ONCE = BURST - 5  # frames; a margin, since the network may bunch them
REASONS = {1009: "a line has 32,768 bytes at most"}  # API Gateway gives none


class Conversation(websocket.WebSocket):
    """Ends the program when the server ends the connection."""

    is_piped = False  # whether standard input is not a terminal
    shown = threading.Event()
    due = 0.0  # when the next line may be sent, not counting its own weight
    end: str | None = None  # the reason, once the server has ended the connection

    def send(self, line: bytes | str, opcode: int = ABNF.OPCODE_TEXT) -> int:
        """Sends a frame. Ignores a broken connection: the receiving thread reports it.

        Piped lines keep to the chat's pace, and each waits for the reply to the line before,
        because frames may overtake each other.
        """
        is_piped = opcode == ABNF.OPCODE_TEXT and self.is_piped
        if is_piped:
            text = line if isinstance(line, str) else line.decode()
            self.due = max(self.due, time.monotonic() - AT_ONCE / RATE) + weight(text) / RATE
            time.sleep(max(0.0, self.due - time.monotonic()))
        self.shown.clear()
        sent = 0
        with suppress(websocket.WebSocketException, OSError):
            sent = super().send(line, opcode)
        if is_piped:
            self.shown.wait(REPLIES_WITHIN)
        return sent

    def recv_frame(self) -> ABNF:
        self.shown.set()  # the previous frame
        try:
            frame = super().recv_frame()  # type: ignore[no-untyped-call]
        except (websocket.WebSocketException, OSError) as error:
            self.ends(f"the connection broke: {error}")
        if frame.opcode == ABNF.OPCODE_CLOSE:
            code = int.from_bytes(frame.data[:2], "big")
            reason = frame.data[2:].decode(errors="replace") or REASONS.get(code)
            self.ends(f"{reason or 'no reason given'} (code {code})")
        return frame

    def ends(self, reason: str) -> None:
        """Ends the program from the receiving thread: only a signal interrupts input()."""
        Conversation.end = f"Disconnected by the server: {reason}"
        os.kill(os.getpid(), signal.SIGUSR1)  # background jobs of a script ignore SIGINT
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
    Conversation.is_piped = not sys.stdin.isatty()
    is_raw = Conversation.is_piped or not sys.stdout.isatty()
    if is_raw:
        sys.argv += ["--raw", "--eof-wait", str(LAST_REPLIES_WITHIN)]
    elif "token=" not in url:
        print("The first line that you type is your nickname.")
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            _wsdump.main()
    except (websocket.WebSocketException, OSError) as error:
        hint = "; with `make run SIGN_IN=on`: make chat AS=John"
        raise Failure(f"No connection to {chat.url}: {refusal(error, hint)}") from None
    if Conversation.end and is_raw:
        raise Failure(Conversation.end)
    if Conversation.end:
        print(f"{ERASE_LINE}{Conversation.end}")


if __name__ == "__main__":
    run(main)
