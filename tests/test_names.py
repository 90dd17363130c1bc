import unicodedata

import pytest

from chalicelib import names


@pytest.mark.parametrize(
    "name", ["John", "a", "x" * 32, "Jürgen", "李雷", "🙂", "don't", "a/b", "_"]
)
def test_nicknames_that_are_valid(name: str) -> None:
    assert names.nickname(name) == name


def test_white_space_around_a_nickname_is_removed() -> None:
    assert names.nickname(" \tJohn\r\n\u3000") == "John"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "x" * 33,
        "John Smith",
        "John\nJenny",
        "a\u00a0b",
        "a\u2003b",
        "John:",
        "/John",
        "\x00",
        "a\x1bb",
        "\u202eJohn",  # right-to-left override
        "Jo\u200bhn",  # zero-width space
        "Jo\u200dhn",  # zero-width joiner
        "\u2066John",  # an isolate
        "\ufeffJohn",  # byte order mark
        "\u3164",  # a letter in Unicode that shows nothing
        "John\ufe0f",
        "\u2800",
        "\ue000",  # private use
        "\ud800",  # half a character
        "\U0010ffff",  # not a character
    ],
)
def test_nicknames_that_are_not_valid(name: str) -> None:
    with pytest.raises(names.InvalidName, match=r"^Nicknames are 1 to 32 printable characters, "):
        names.nickname(name)


def test_names_are_kept_in_nfc() -> None:
    assert names.nickname("Ju\u0308rgen") == "J\u00fcrgen"
    assert names.room("cafe\u0301") == "caf\u00e9"


def test_the_length_counts_after_nfc() -> None:
    assert names.nickname("u\u0308" * 32) == "ü" * 32
    assert len(unicodedata.normalize("NFC", "\u0958" * 17)) == 34
    with pytest.raises(names.InvalidName):
        names.nickname("\u0958" * 17)


@pytest.mark.parametrize(
    "room", ["chalice", "#chalice", "x" * 64, "a:b", "/etc", "rooms", "öffentlich"]
)
def test_rooms_that_are_valid(room: str) -> None:
    assert names.room(room) == room


@pytest.mark.parametrize("room", ["", " ", "a b", "x" * 65, "\x07", "a\u202eb", "\u200b"])
def test_rooms_that_are_not_valid(room: str) -> None:
    with pytest.raises(names.InvalidName, match=r"^Room names are 1 to 64 printable characters, "):
        names.room(room)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("John", "JOHN"),
        ("Straße", "STRASSE"),
        ("ﬁn", "fin"),
        ("Ａnna", "anna"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
    ],
)
def test_nicknames_that_count_as_the_same(name: str, other: str) -> None:
    assert names.claim(name) == names.claim(other)


def test_nicknames_that_differ() -> None:
    assert names.claim("John") != names.claim("Jöhn")


def test_a_claim_fits_a_sort_key_however_long_the_folding_makes_it() -> None:
    nickname = names.nickname("\ufdfa" * 32)  # 18 characters each, once folded
    assert len(f"taken_{names.claim(nickname)}".encode()) <= 1024
