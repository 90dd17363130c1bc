"""`python -m scripts.lookalikes`: writes chalicelib/text/lookalikes.json, for `names.claim`.

The tables are made from Unicode's confusables.txt and Scripts.txt, version 13, as the package
`confusable-homoglyphs` has them. A test compares the file with the output of this script.
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from confusable_homoglyphs import categories
from confusable_homoglyphs.confusables import confusables_data

from chalicelib.text.names import fold

FILE = Path(__file__).resolve().parent.parent / "chalicelib" / "text" / "lookalikes.json"
SCRIPTS = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE", "INHERITED"}
SHARED = "COMMON"  # digits, punctuation, symbols: only those that look like ASCII

# The characters are folded, except those of the second table, which would lose their looks.
NAMES = ("everywhere", "beside other letters")

Looks = dict[str, str]  # by character


def lookalikes() -> tuple[Looks, Looks]:
    """The looks of folded characters, and those of Greek letters beside other letters.

    Nu looks like N or v, by its case, but N and v must not count as the same. So a letter has the
    looks of its capital in a name that is all Greek, and its own in any other.
    """
    pairs = [pair for pair in confusables() if is_in_scope(*pair)]
    looks: Looks = {}

    def look(text: str) -> str:
        return "".join(look(looks[one]) if one in looks else one for one in fold(text))

    links = sorted(  # from ASCII characters first, then to them
        (not source.isascii(), not fold(target).isascii(), source, target)
        for source, target in pairs
        if is_folded_alone(source)
    )
    for *_, source, target in links:
        one, other = look(source), look(target)
        if one.isascii() and len(other) == 1 and not other.isascii():
            one, other = other, one
        if one != other and len(one) == 1 and (source.isascii() or not one.isascii()):
            looks[one] = other
    beside_others = {
        source: look(target)
        for source, target in pairs
        if look(source) != look(target)
        and look(target).isascii()
        and script(fold(source)[0]) == "GREEK"
    }
    return {one: look(one) for one in looks}, beside_others


def is_in_scope(source: str, target: str) -> bool:
    return script(source) in SCRIPTS or (script(source) == SHARED and target.isascii())


def is_folded_alone(source: str) -> bool:
    """Whether folding changes nothing but the character's case."""
    folded = fold(source)
    return (
        len(folded) == 1
        and unicodedata.normalize("NFKD", source) == source
        and (source.isalpha() or source == folded)
    )


def confusables() -> Iterator[tuple[str, str]]:
    """The lines of confusables.txt: a character, and the text that it looks like.

    The package lists each of the two under the other. The text is the one with several entries; if
    neither has several, the character comes first.
    """
    listed = {plain(text): entries for text, entries in confusables_data.items()}
    order = {text: n for n, text in enumerate(listed)}
    for source, (entry, *others) in listed.items():
        target = plain(entry["c"])
        if not others and (len(listed[target]) > 1 or order[source] < order[target]):
            yield source, target


def plain(text: str) -> str:
    """The text without the marks around right-to-left text."""
    return text.strip("\u200e") or text


@cache
def script(character: str) -> str:
    return str(categories.alias(character))


def content() -> str:
    """The text of chalicelib/text/lookalikes.json."""
    tables = {name: by_look(looks) for name, looks in zip(NAMES, lookalikes(), strict=True)}
    return json.dumps(tables, indent=1) + "\n"


def by_look(looks: Looks) -> dict[str, str]:
    """A text, and the characters that look like it."""
    characters: defaultdict[str, str] = defaultdict(str)
    for character, look in sorted(looks.items()):
        characters[look] += character
    return dict(sorted(characters.items()))


if __name__ == "__main__":
    FILE.write_text(content())
