"""Text from one person for the screen of another, which may be a terminal.

No line of it passes for somebody else's, and none of it is a command to the terminal.
"""

import re

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
