"""The rules for nicknames and room names.

No name may imitate a line of another person or of the server, so invisible characters are not
allowed in names: white space, control and format characters (bidirectional overrides,
zero-width joiners), and those that Unicode classes as letters or marks but draws as nothing.
"""

import re
import unicodedata

NICKNAME_LENGTH = 32  # characters after NFC; a longer one would crowd out the text it prefixes
ROOM_LENGTH = 64  # characters after NFC
CLAIM_BYTES = 1_000  # a DynamoDB sort key holds 1,024 bytes, including the claim's prefix

INVALID_NICKNAME = (
    'Nicknames are 1 to 32 printable characters, without spaces or ":", and do not start with "/".'
)
INVALID_ROOM = "Room names are 1 to 64 printable characters, without spaces."

# `str.isprintable` rejects categories C* and Z*. These characters pass, yet show nothing: from
# Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt, and the Braille blank.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


class InvalidName(ValueError):
    """The text is not a valid name; the message is the reply."""


def nickname(text: str) -> str:
    """The nickname that a text asks for, in NFC and without surrounding white space.

    Raises `InvalidName`.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if not _visible(name, NICKNAME_LENGTH) or ":" in name or name.startswith("/"):
        raise InvalidName(INVALID_NICKNAME)
    return name


def room(text: str) -> str:
    """The room that a text names, in NFC and otherwise unchanged. Raises `InvalidName`."""
    name = unicodedata.normalize("NFC", text)
    if not _visible(name, ROOM_LENGTH):
        raise InvalidName(INVALID_ROOM)
    return name


def claim(nickname: str) -> str:
    """The form in which nicknames are compared: the same for those that count as the same.

    NFKC and case folding (Unicode Standard, D146: a second NFKC after the folding), cut to
    `CLAIM_BYTES`, since NFKC can turn one character into 18. Names that differ only after the
    cut count as the same too.
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
