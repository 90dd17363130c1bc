"""`python -m scripts.lookalikes`: writes chalicelib/text/lookalikes.json, for `names.claim`.

The tables are made from Unicode's confusables.txt and Scripts.txt, version 13, as the package
`confusable-homoglyphs` has them. A test compares the file with the output of this script.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from confusable_homoglyphs.categories import alias as script
from confusable_homoglyphs.confusables import confusables_data

from chalicelib.text.names import fold

FILE = Path(__file__).resolve().parent.parent / "chalicelib" / "text" / "lookalikes.json"
SCRIPTS = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE", "INHERITED"}
SHARED = "COMMON"  # digits, punctuation, symbols: only those that look like ASCII
MARK = "\u200e"  # the package puts it around right-to-left text

Looks = dict[str, str]  # by character


def lookalikes() -> tuple[Looks, Looks]:
    """The looks of folded characters, and those of Greek letters beside other letters.

    The letters of the second table are not folded, since folding would change their looks.
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
        if is_only_case_folded(source)
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


def is_only_case_folded(source: str) -> bool:
    """Whether `fold` only case-folds a letter, or leaves another character alone."""
    return fold(source) == (source.casefold() if source.isalpha() else source)


def confusables() -> Iterator[tuple[str, str]]:
    """The lines of confusables.txt: a character, and the text that it looks like.

    The package lists each of the two under the other. The text is the one with several entries; if
    neither has several, the character comes first.
    """
    listed = {text.strip(MARK): entries for text, entries in confusables_data.items()}
    order = {text: n for n, text in enumerate(listed)}
    for source, (entry, *others) in listed.items():
        target = entry["c"].strip(MARK)
        if not others and (len(listed[target]) > 1 or order[source] < order[target]):
            yield source, target


def content() -> str:
    """The text of chalicelib/text/lookalikes.json."""
    everywhere, beside_others = map(by_look, lookalikes())
    tables = {"everywhere": everywhere, "beside other letters": beside_others}
    return json.dumps(tables, indent=1) + "\n"


def by_look(looks: Looks) -> dict[str, str]:
    """The characters that look like each text."""
    return {
        look: "".join(sorted(one for one in looks if looks[one] == look))
        for look in sorted(set(looks.values()))
    }


if __name__ == "__main__":
    FILE.write_text(content())
