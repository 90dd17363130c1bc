"""What a nickname or a room name may be.

No name may look like a line of another person or of the server, so what cannot be seen
cannot be in a name: white space, control and format characters (bidirectional overrides,
zero-width joiners), and the characters that Unicode counts as letters or marks but draws
as nothing.
"""

import re
import unicodedata

NICKNAME_LENGTH = 32  # characters after NFC; a longer one would crowd out the text it prefixes
ROOM_LENGTH = 64  # characters after NFC
CLAIM_BYTES = 1_000  # a DynamoDB sort key holds 1,024 bytes, and the claim's has a prefix

INVALID_NICKNAME = (
    'Nicknames are 1 to 32 printable characters, without spaces or ":", and do not start with "/".'
)
INVALID_ROOM = "Room names are 1 to 64 printable characters, without spaces."

# `str.isprintable` refuses categories C* and Z*; these pass it and yet show nothing. From
# Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt, and the blank of Braille.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


class InvalidName(ValueError):
    """The text is not a name; the message is the line to answer with."""


def nickname(text: str) -> str:
    """The nickname that a text asks for, in NFC and without surrounding white space.

    Raises `InvalidName`.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if not _visible(name, NICKNAME_LENGTH) or ":" in name or name.startswith("/"):
        raise InvalidName(INVALID_NICKNAME)
    return name


def room(text: str) -> str:
    """The room that a text names, in NFC and otherwise as it is. Raises `InvalidName`."""
    name = unicodedata.normalize("NFC", text)
    if not _visible(name, ROOM_LENGTH):
        raise InvalidName(INVALID_ROOM)
    return name


def claim(nickname: str) -> str:
    """What two nicknames have in common when they count as the same.

    NFKC and case folding (Unicode Standard, D146: a second NFKC after the folding), cut to
    `CLAIM_BYTES` since NFKC makes up to 18 characters of one: two names that differ only
    after the cut count as the same too.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", nickname).casefold())
    return folded.encode()[:CLAIM_BYTES].decode(errors="ignore")


def _visible(name: str, length: int) -> bool:
    return (
        0 < len(name) <= length
        and name.isprintable()
        and " " not in name
        and not _BLANK.search(name)
    )
