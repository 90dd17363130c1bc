"""Texts on the screens of others: each line names its author, and none drives a terminal."""

import pytest

from chalicelib import texts
from tests.conftest import Person

BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_a_line_break_begins_a_new_line_of_the_same_author(
    john: Person, jenny: Person, line_break: str
) -> None:
    john.says(f"Hi{line_break}Jenny: yes")
    for person in (john, jenny):
        person.hears("John: Hi\nJohn: Jenny: yes")


@pytest.mark.parametrize(
    ("text", "arrives"),
    [
        ("", "John: "),
        ("\n", "John: "),
        ("\r\n", "John: "),
        ("\n\n", "John: \nJohn: "),
        ("Hi\n", "John: Hi"),
        ("Hi\n\n", "John: Hi\nJohn: "),
        ("\nHi", "John: \nJohn: Hi"),
        ("\n/quit", "John: \nJohn: /quit"),
        (" a\tb  ", "John:  a\tb  "),
        ("\r\x1b[2K< Jenny: pay 666", "John: \nJohn: \ufffd[2K< Jenny: pay 666"),
        ("e\u0301\u200d\ufeff\u200e\U000e0001", "John: e\u0301\u200d\ufeff\u200e\U000e0001"),
    ],
)
def test_what_others_hear(john: Person, jenny: Person, text: str, arrives: str) -> None:
    john.says(text)
    jenny.hears(arrives)


def test_every_other_control_character_is_replaced() -> None:
    for control in [*CONTROLS, *BIDI]:
        if control not in BREAKS and control != "\t":
            assert texts.repeated(f"a{control}b") == "a\ufffdb", ascii(control)


def test_every_other_character_arrives_as_it_is() -> None:
    changed = {*CONTROLS, *BIDI, *BREAKS}
    for start in range(0, 0x110000, 256):
        block = "".join({*map(chr, range(start, start + 256))} - changed)
        assert texts.repeated(block, "J: ") == f"J: {block}", hex(start)
    assert texts.repeated("\t") == "\t"


def test_an_unknown_command_drives_no_terminal(john: Person) -> None:
    john.says("/\x1b]0;Title\x07\u202e\x9b")
    john.hears("Unknown command: \ufffd]0;title\ufffd\ufffd\ufffd")


def test_the_length_counts_every_prefix(john: Person, jenny: Person) -> None:
    breaks = "\n" * 4_680  # 4,681 lines, each with the 6 bytes of `John: `
    john.says(breaks + "xx")
    jenny.hears("John: \n" * 4_680 + "John: xx")
    john.hears("John: \n" * 4_680 + "John: xx")
    john.says(breaks + "xxx")
    john.hears("Message too long: 32769 bytes, the limit is 32768.")
    jenny.hears_nothing()


def test_the_length_counts_replacements(john: Person, jenny: Person) -> None:
    john.says("\0" * 20_000)
    john.hears("Message too long: 60006 bytes, the limit is 32768.")
    jenny.hears_nothing()
