"""Text from one person for the screen of another, which may be a terminal.

No line of it passes for somebody else's, and none of it is a command to the terminal.
"""

import re
from collections.abc import Iterable, Iterator

# API Gateway quotas: "WebSocket frame size", 32 KB. It splits a longer message, of up to 128 KB, into
# frames, and a client that shows each frame by itself, as wsdump does, shows the rest without its
# author, or dies of half a character.
MESSAGE_BYTES = 32_768

# C0, DEL and C1, without the tab and the line feed; embeddings, overrides and isolates (UAX #9),
# which reorder the line around them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def repeated(text: str, prefix: str = "") -> str:
    """The text as it is repeated to people: each of its lines begins with the prefix.

    Lines end where `str.splitlines` splits, and are joined by line feeds; a break at the end is
    dropped, and an empty text is one empty line. Other control characters become U+FFFD, all else
    is unchanged. So a terminal that is wide enough shows each line after its true prefix.

    Not promised: the wrapping of lines in a narrow one, or the looks of unusual letters.
    """
    lines = text.splitlines() or [""]
    return _CONTROLS.sub("\ufffd", "\n".join(prefix + line for line in lines))


def without_surrogates(message: str) -> str:
    """Replace lone surrogates: JSON escapes can hold them, UTF-8 cannot."""
    return message.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_too_long(line: str) -> bool:
    """Whether API Gateway would split it into several frames."""
    return len(line.encode()) > MESSAGE_BYTES


def messages(lines: Iterable[str]) -> Iterator[str]:
    """Pack lines into as few messages as possible. No line may be too long for one."""
    message: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode()) + 1
        if message and size + length - 1 > MESSAGE_BYTES:
            yield "\n".join(message)
            message, size = [], 0
        message.append(line)
        size += length
    yield "\n".join(message)
