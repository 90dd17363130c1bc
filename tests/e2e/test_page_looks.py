"""What the page looks like, on phones and desktops, to those who see it and to those who do not."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.e2e.small_chat import WENT_WRONG, SmallChat
from tests.e2e.tabs import PHONE, ColorScheme, OpenTab, Tab, is_accessible, is_within

INVALID = (
    'Nicknames are 1 to 32 printable characters, without spaces or ":", and do not start with "/".'
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    open_tab: OpenTab, chat: SmallChat, scheme: ColorScheme, device: dict[str, Any]
) -> None:
    chat.instead |= {"a:b": [[INVALID]], "/help": [[HELP]], "no": [[WENT_WRONG]]}
    john = open_tab(color_scheme=scheme, **device).opens()
    is_accessible(john)
    john.asks_for("a:b")
    john.shows("^Nicknames are")
    is_accessible(john)
    john.enters("John", "tea")
    for n in range(10):
        chat.sends(f"p{n} joined room.", f"p{n}: see https://example.com", f"p{n}: John?")
    for text in ("Hi", "no", "/help", "/ls"):
        john.says(text)
    john.reads("John")
    is_accessible(john)
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.says("Hello?")
    is_accessible(john)


def test_on_a_phone_nothing_is_covered_or_wider_than_the_screen(open_tab: OpenTab) -> None:
    john = open_tab(**PHONE).opens()
    assert is_within(john)
    john.enters("John", "tea")
    for text in ("W" * 300, "https://example.com/" + "a" * 200, "Hi"):
        john.says(text)
        john.reads(f"John: {text}")
    assert is_within(john)
    john.page.set_viewport_size({"width": 360, "height": 380})  # above the keyboard
    line, box = john.page.locator("#log .line").last, john.page.locator("#compose")
    john.awaits(lambda: bottom(line) <= top(box))
    assert bottom(line) <= top(box)
    assert bottom(box) <= 380


def test_it_is_usable_at_twice_the_size(open_tab: OpenTab) -> None:
    """A zoom of 200% makes a window of 1280 by 720 as narrow as this."""
    john = (
        open_tab(viewport={"width": 640, "height": 360}, device_scale_factor=2)
        .opens()
        .enters("John", "tea")
    )
    john.says("Hi")
    john.reads("John: Hi")
    assert is_within(john)
    assert bottom(john.page.locator("#log .line").last) <= top(john.page.locator("#compose"))


def test_a_lost_connection_is_hard_to_miss(john: Tab) -> None:
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    status = john.page.locator("#status")
    expect(status).to_have_text("Reconnecting …")
    expect(status).to_have_css("font-weight", "600")
    colour = "(status) => getComputedStyle(status).color"
    assert status.evaluate(colour) != john.page.locator(".aside").first.evaluate(colour)


def test_help_keeps_its_indent_on_a_phone(open_tab: OpenTab, chat: SmallChat) -> None:
    chat.instead["/help"] = [[HELP]]
    john = open_tab(**PHONE).opens().enters("John", "tea")
    john.says("/help")
    john.reads(HELP)
    indent, lefts = john.page.get_by_text("If no {nickname}").evaluate(
        """(row) => {
            const range = document.createRange();
            range.selectNodeContents(row.firstChild);
            const lefts = [...range.getClientRects()].filter((box) => box.width > 20)
                .slice(1).map((box) => box.left);
            range.setEnd(row.firstChild, row.textContent.search(/\\S/));
            return [range.getBoundingClientRect().right, lefts];
        }"""
    )
    assert lefts
    assert all(abs(left - indent) < 2 for left in lefts)


HELP = """\
Commands available:
    /nick {nickname}
          Change your name to {nickname}. If no {nickname}
          is provided then your current name will be printed"""


def test_words_of_buttons_stay_whole_at_twice_the_size(open_tab: OpenTab) -> None:
    john = open_tab(viewport={"width": 320, "height": 480}, device_scale_factor=2)
    john.page.add_init_script(
        "addEventListener('load', () => document.documentElement.style.fontSize = '32px')"
    )
    john.opens().enters("John", "tea")
    assert is_within(john)
    for button in john.page.get_by_role("button").all():
        if not button.is_visible():
            continue
        longest = max((button.text_content() or "").split(), key=len)
        lines = button.evaluate(
            """(button, word) => {
                const text = button.firstChild;
                const range = document.createRange();
                const start = text.data.indexOf(word);
                range.setStart(text, start);
                range.setEnd(text, start + word.length);
                return range.getClientRects().length;
            }""",
            longest,
        )
        assert lines == 1, longest


def test_forced_colours_keep_the_edges(open_tab: OpenTab, chat: SmallChat) -> None:
    john = open_tab(forced_colors="active").opens().enters("John", "tea")
    chat.instead["no"] = [[WENT_WRONG]]
    for text in ("Hi", "no"):
        john.says(text)
    john.shows("^Not sent$")
    for selector in (".own .text", ".failed .text", "#compose .main", "#newer"):
        edge = john.page.locator(selector).first
        expect(edge).to_have_css("border-top-width", "1px")
        expect(edge).to_have_css("border-top-style", "solid")


def test_a_tapped_button_is_not_underlined(open_tab: OpenTab) -> None:
    john = open_tab(**PHONE).opens().enters("John", "tea")
    button = john.page.get_by_role("button", name="Help")
    button.tap()
    button.hover()  # as browsers of phones leave it
    expect(button).to_have_css("text-decoration-line", "none")


def top(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box
    return box["y"]


def bottom(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box
    return box["y"] + box["height"]
