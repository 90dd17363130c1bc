"""What the page must do in every engine: chat, reconnect, compose, link and greet.

`make browsers` runs these where the browsers are installed; `make test` leaves them out.
"""

from __future__ import annotations

from itertools import count

import pytest

from chalicelib.page import TITLE
from tests.browsers.conftest import OpenWindow, Visitor
from tests.e2e.conftest import eventually
from tests.e2e.small_chat import SmallChat
from tests.e2e.test_page import ODD_TEXTS, play_the_transcript
from tests.e2e.test_page_text import AUTHOR, COSTLY, LIMIT, PLAIN, whole
from tests.e2e.test_page_truth import COMPOSES

# The transcript


def test_the_tutorials_transcript(two_windows: list[Visitor]) -> None:
    """Between two windows, on the real chat."""
    play_the_transcript(two_windows)


@pytest.mark.parametrize("lines", [["Grüße, 日本"], ["  one", "", "two"]])
def test_what_is_typed_is_sent(john: Visitor, chat: SmallChat, lines: list[str]) -> None:
    """Shift and Enter break a line, Enter sends."""
    john.says(*lines)
    john.reads("John: " + "\n".join(lines))
    assert chat.heard[-1] == "\n".join(lines)
    assert john.value("#text") == ""


def test_odd_texts_are_shown_as_they_are(john: Visitor, chat: SmallChat) -> None:
    for text in ODD_TEXTS:
        chat.sends("\n".join(f"Rose: {line}" for line in text.split("\n")))
        john.reads(f"Rose: {text}")
    assert john.window.runs("() => document.querySelector('#log :is(img, script, a)')") is None


# A lost connection


def test_it_is_back_after_the_connection_was_lost(john: Visitor, chat: SmallChat) -> None:
    """Texts typed meanwhile arrive. A text in flight is not claimed to have arrived."""
    chat.instead["lost?"] = [[]]
    john.says("lost?")
    eventually(lambda: "lost?" in chat.heard)
    john.says("kept")
    chat.is_up = False
    chat.drops()
    john.shows("Reconnecting …")
    john.shows("Perhaps not sent: the connection was lost")
    john.window.types("#text", "half a")
    chat.is_up = True
    john.reads("John: kept")
    john.shows("Connection lost, and back at ")
    john.shows("You are John")
    assert chat.heard.count("lost?") == 1
    assert john.value("#text") == "half a"


def test_a_reload_keeps_the_nickname_the_room_and_what_is_being_typed(
    john: Visitor, chat: SmallChat
) -> None:
    john.window.types("#text", "half a")
    john.url += "#tea"
    john.opens()
    john.reads('Joined chat room "tea"')
    assert john.value("#text") == "half a"


# A composition


@pytest.mark.parametrize(
    ("text", "is_composing", "then", "is_sent"),
    [
        ("日本", True, False, False),  # Enter chooses a word
        ("日本", False, False, False),  # in Safari
        ("안녕", True, False, True),  # Enter chooses nothing
        ("안녕", False, False, True),  # in Safari
        ("안녕", True, True, True),  # with a second event
    ],
)
def test_enter_in_a_composition(
    john: Visitor, chat: SmallChat, text: str, is_composing: bool, then: bool, is_sent: bool
) -> None:
    """No driver composes, so the test sends the events of a composition."""
    compose = f"(it) => ({COMPOSES})(document.querySelector('#text'), it)"
    john.window.runs(compose, [text, is_composing, then])
    if is_sent:
        john.reads(f"John: {text}")
        assert john.value("#text") == ""
    else:
        assert john.value("#text") == text
        john.window.presses("#text", "Enter")  # and the next one sends
        john.reads(f"John: {text}")
    assert chat.heard.count(text) == 1


# Links


def test_links_end_where_people_end_them(john: Visitor, chat: SmallChat) -> None:
    text = "(see https://example.com/a_(b)?q=1), http://example.org/日本。 ftp://x javascript:1"
    chat.sends(f"Rose: {text}")
    john.reads(f"Rose: {text}")
    assert links(john) == [
        ["https://example.com/a_(b)?q=1", "_blank", "noopener noreferrer"],
        ["http://example.org/日本", "_blank", "noopener noreferrer"],
    ]


def links(visitor: Visitor) -> list[list[str]]:
    found: list[list[str]] = visitor.window.runs(
        "() => [...document.querySelectorAll('#log .text a')]"
        ".map((link) => [link.getAttribute('href'), link.target, link.rel])"
    )
    return found


def test_a_link_to_a_room_joins_it(john: Visitor, chat: SmallChat) -> None:
    chat.rooms = ["coffee", "dev!", "50%"]
    john.says("/quit")
    john.reads('Left chat room "tea"')
    john.presses_button("Rooms")
    john.reads("coffee\ndev!\n50%")
    john.window.clicks('//a[.="dev!"]')
    john.reads('Joined chat room "dev!"')
    assert john.window.runs("() => location.hash") == "#dev%21"


# Arrival


def test_an_invitation_opens_its_room_and_says_who_is_here(
    open_window: OpenWindow, chat: SmallChat
) -> None:
    chat.members = ["Rose", "Zoë"]
    john = open_window(f"{chat.url}#Book%20Club%21")
    assert john.value("#room") == "Book-Club!"
    john.window.fills("#nickname", "John")
    john.window.presses("#nickname", "Enter")
    john.shows("Also here: Rose, Zoë")
    john.reads('Joined chat room "Book-Club!"')
    assert chat.heard == ["John", "/join Book-Club!", "/ls"]
    assert john.window.runs("() => document.title") == f"Book-Club! · {TITLE}"


def test_alone_one_can_copy_an_invitation(john: Visitor) -> None:
    john.shows("Nobody else is here yet.")
    john.presses_button("Copy the invitation")
    john.shows("Copied")


# The looks


def test_the_lines_end_at_the_input_and_nothing_else_scrolls(
    john: Visitor, chat: SmallChat
) -> None:
    """With few lines and with many, in parts that only screen readers see too."""
    for n in range(40):
        chat.sends(f"Rose: line {n}")
        if n in (0, 39):
            john.reads(f"Rose: line {n}")
            eventually(lambda: 0 <= john.window.runs(GAP) < 40)
            assert john.window.runs(OVERFLOW) == [0, 0]
    john.window.runs(TO_THE_TOP)
    chat.sends("Rose: and on")
    john.shows("New lines ↓")
    john.presses_button("New lines ↓")
    eventually(lambda: 0 <= john.window.runs(GAP) < 40)


TO_THE_TOP = """() => {
    const scroller = document.querySelector("#scroller");
    scroller.scrollTo(0, 0);
    scroller.dispatchEvent(new Event("scroll")); // the real one comes with the next frame
}"""
GAP = """() => document.querySelector("#compose").getBoundingClientRect().top
    - document.querySelector("#log .line:last-child").getBoundingClientRect().bottom"""
OVERFLOW = """() => {
    const { scrollWidth, scrollHeight, clientWidth, clientHeight } = document.documentElement;
    return [scrollWidth - clientWidth, scrollHeight - clientHeight];
}"""


def test_no_message_blocks_a_window(john: Visitor, chat: SmallChat) -> None:
    """In 100 ms it is shown, on a machine that shows plain words in one frame of 16 ms."""
    john.window.runs(TIME)
    measured = {kind: slowness(john, chat, text) for kind, text in COSTLY.items()}
    assert {kind: times for kind, times in measured.items() if times >= LIMIT} == {}


def slowness(visitor: Visitor, chat: SmallChat, text: str) -> float:
    """The least of five measurements against plain words; the first below the limit will do."""
    least = float("inf")
    for _ in range(5):
        plain = max(16, blocks(visitor, chat, PLAIN))
        least = min(least, blocks(visitor, chat, text) / plain)
        if least < LIMIT:
            break
    return least


def blocks(visitor: Visitor, chat: SmallChat, text: str) -> float:
    """For how many milliseconds a text of Rose blocks a window, which shows it."""
    visitor.window.runs("() => { document.documentElement.dataset.longest = 0; }")
    chat.sends(AUTHOR + whole(text).replace("\n", f"\n{AUTHOR}"))
    end = f"Bob: end {next(NUMBERS)}"
    chat.sends(end)
    visitor.reads(end)
    return float(visitor.window.runs(LONGEST))


NUMBERS = count()
TIME = """() => {
    const { dataset } = document.documentElement;
    dataset.last = performance.now();
    setInterval(() => {
        dataset.longest = Math.max(dataset.longest, performance.now() - dataset.last);
        dataset.last = performance.now();
    });
}"""
LONGEST = """() => {
    const { dataset } = document.documentElement;
    document.body.offsetHeight;
    return Math.max(dataset.longest, performance.now() - dataset.last);
}"""
