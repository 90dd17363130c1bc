"""The rules for nicknames and room names.

No name may imitate a line of another person, of the server or of API Gateway, or another's
nickname. So names hold no white space, no control or format characters (bidirectional overrides,
zero-width spaces), no letters or marks that show nothing, and no piles of marks that reach into
other lines.
"""

import json
import re
import unicodedata
from pathlib import Path

NICKNAME_LENGTH = 32  # characters after NFC; a longer one would crowd out the text it prefixes
ROOM_LENGTH = 64  # characters after NFC
DECOMPOSED = 4  # the most characters that NFC turns into one (UAX #15: Maximum Expansion Factor)

# The only nickname that, with ": ", begins a line of the server: `Usage: /join {chat_room_name}`.
SERVERS_OWN = "Usage"

INVALID_NICKNAME = (
    'Nicknames are 1 to 32 printable characters, without spaces or ":", and do not start with "/".'
)
INVALID_ROOM = "Room names are 1 to 64 printable characters, without spaces."

# Keyboards write these into ordinary names: joiners, and selectors of a text or emoji style. They
# show nothing by themselves, so names are kept without them.
_DROPPED = "\u200c\u200d\ufe0e\ufe0f"
# `str.isprintable` rejects categories C* and Z*. These characters pass, yet show nothing: from
# Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt, the blanks of Braille, music
# and hieroglyphs, the filler of Khitan, and the modifiers of Duployan and SignWriting.
_BLANKS = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U00013441\U00013442"
    "\U00016fe4\U0001bc9d\U0001d159\U0001da9b-\U0001daaf\U000e0100-\U000e01ef"
)
# These join letters of one script, and show nothing beside others: Invisible_Stacker in Unicode's
# IndicSyllabicCategory.txt, and the joiner of Tifinagh.
_JOINERS = (
    "\u1039\u17d2\u1a60\u2d7f\uaaf6\U00010a3f\U00011133\U000113d0\U0001193e\U00011a47\U00011a99"
    "\U00011d45\U00011d97\U00011f42"
)
_BLANK = re.compile(f"[{_BLANKS}]")
_UNSEEN = re.compile(f"[{_DROPPED}{_BLANKS}{_JOINERS}]")
_SYNTAX = re.compile(r"[:/\s]")  # ends a nickname, or begins a command
_GATEWAY = "{''"  # the claim of `{"`: how API Gateway's own frames begin
_NOT_GREEK = re.compile(r"[^\W\d_\u0370-\u03ff\u1f00-\u1fff]")  # a letter
_SYLLABLES = re.compile("[\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]+")  # Tibetan, Burmese, Khmer
_LOOKALIKES, _BESIDE_OTHERS = (  # UTS #39, written by scripts/lookalikes.py
    {ord(one): look for look, characters in table.items() for one in characters}
    for table in json.loads(Path(__file__).with_name("lookalikes.json").read_text()).values()
)


class InvalidName(ValueError):
    """The text is not a valid name; the message is the reply."""


def nickname(text: str) -> str:
    """The nickname that a text asks for: in NFC, without surrounding white space and joiners.
    Idempotent. Raises `InvalidName`."""
    name = _name(_drop(text).strip(), NICKNAME_LENGTH, INVALID_NICKNAME)
    if name.startswith("/") or any(map(_is_like_syntax, name)):
        raise InvalidName(INVALID_NICKNAME)
    if claim(name) == claim(SERVERS_OWN):
        raise InvalidName(f"Nickname {name} is already in use.")
    return name


def room(text: str) -> str:
    """The room that a text names: in NFC, without joiners. Raises `InvalidName`."""
    return _name(_drop(text), ROOM_LENGTH, INVALID_ROOM)


def claim(nickname: str) -> str:
    """The form in which nicknames are compared: the same for those that look the same.

    It is the skeleton of UTS #39, after NFKC and case folding, without invisible characters, for
    the scripts whose letters pass for Latin: Latin, Greek, Cyrillic, Armenian and Cherokee. As in
    UTS #39, I, l, 1 and | are the same; so are O and 0, and m and rn. In a name all in Greek, a
    letter whose two cases look like different Latin letters counts as its capital.

    Not promised: lookalikes in other scripts, or those missing from UTS #39 (d and cl). Idempotent.
    A nickname's claim is at most 576 bytes: a sort key may have 1,024 (Quotas in Amazon DynamoDB).
    """
    name = unicodedata.normalize("NFKC", nickname)
    if _NOT_GREEK.search(name):
        name = nickname.translate(_BESIDE_OTHERS)
    seen = _UNSEEN.sub("", fold(name).translate(_LOOKALIKES))
    return unicodedata.normalize("NFKD", seen)


def fold(text: str) -> str:
    """Case-folded and in NFKD; both twice because of the iota below (Unicode Standard, D146)."""
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKD", text)


def _name(text: str, length: int, reply: str) -> str:
    # A long text is refused before NFC, which takes quadratic time for a run of combining marks.
    name = unicodedata.normalize("NFC", text) if len(text) <= DECOMPOSED * length else ""
    if (
        not 0 < len(name) <= length
        or not _is_visible(name)
        or _has_loose_marks(name)
        or claim(name).startswith(_GATEWAY)
    ):
        raise InvalidName(reply)
    return name


def _drop(text: str) -> str:
    for each in _DROPPED:  # in a tenth of the time of `str.translate`
        text = text.replace(each, "")
    return text


def _is_visible(name: str) -> bool:
    return name.isprintable() and " " not in name and not _BLANK.search(name)


def _has_loose_marks(name: str) -> bool:
    """Whether a name begins with a combining mark, or has more than two in a row.

    Three different ones may follow each other in scripts whose syllables need them, as in the names
    Moht Moht and Dolma. Spacing marks (Mc) do not count: they stand beside a letter, not on it.
    """
    row = ""
    for character in name:
        kind = unicodedata.category(character)
        row = row + character if kind in ("Mn", "Me") else ""
        most = 3 if len(set(row)) == 3 and _SYLLABLES.fullmatch(row) else 2
        if len(row) > most:
            return True
    return unicodedata.category(name[0]).startswith("M")


def _is_like_syntax(character: str) -> bool:
    """Whether NFKC turns this into a colon, a slash or white space; a plain slash is allowed."""
    return character != "/" and bool(_SYNTAX.search(unicodedata.normalize("NFKC", character)))
