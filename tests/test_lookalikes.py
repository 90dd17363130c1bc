"""The table of lookalikes: it is up to date, and holds what Unicode's confusables.txt holds."""

from chalicelib import names
from scripts.lookalikes import FILE, confusables, content, is_in_scope

# Letters and digits that `claim` takes for others: NFKC and case folding come first, and a letter
# whose two cases look like different Latin letters counts as one of them.
OTHERS = {"\u017f", "\u01bd", "\uffe8"}


def test_the_file_is_what_the_script_writes() -> None:
    assert FILE.read_text() == content()


def test_the_package_has_all_of_confusables_txt() -> None:
    """Of version 13, but for four lines: a blank, two line breaks and one with a tab."""
    assert len(list(confusables())) == 6_311 - 4


def test_what_looks_like_a_letter_or_digit_counts_as_it() -> None:
    missed = {
        source
        for source, target in confusables()
        if is_in_scope(source, target)
        and target.isascii()
        and target.isalnum()
        and is_valid(f"J{source}")
        and names.claim(f"J{source}") != names.claim(f"J{target}")
    }
    assert missed == OTHERS


def is_valid(name: str) -> bool:
    try:
        return names.nickname(name) == name
    except names.InvalidName:
        return False
