"""Makes one person's text safe for another's screen, which may be a terminal: no line passes for
somebody else's, and nothing is a command to the terminal."""

import re
from collections.abc import Iterable, Iterator

# API Gateway quotas: "WebSocket frame size", 32 KB. API Gateway splits a longer message (up to 128
# KB) into frames. wsdump shows each by itself, so the later frames lack the author, and a character
# cut in two stops wsdump.
MESSAGE_BYTES = 32_768

# C0, DEL and C1, without the tab and the line feed; embeddings, overrides and isolates (UAX #9),
# which reorder the line around them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def repeated(text: str, prefix: str = "") -> str:
    """The text as others see it: each line begins with the prefix.

    Lines end where `str.splitlines` splits, and are joined by line feeds; a break at the end is
    dropped, and an empty text is one empty line. Other control characters become U+FFFD, all else
    is unchanged. If no line wraps, every line shows its real author.

    Not promised: safety if a narrow terminal wraps lines, or the looks of unusual letters.
    """
    lines = text.splitlines() or [""]
    return _CONTROLS.sub("\ufffd", "\n".join(prefix + line for line in lines))


def without_surrogates(message: str) -> str:
    """Replace lone surrogates: JSON escapes can hold them, UTF-8 cannot."""
    return message.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_too_long(line: str) -> bool:
    """Whether API Gateway would split a line into several frames."""
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
