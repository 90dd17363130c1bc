"""Chatting on the page, in a browser, with others on the page or in a terminal."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from chalicelib.page import TITLE
from emulator.emulator import ROOT
from tests.e2e.actors import Person, Terminal
from tests.e2e.conftest import Cloud
from tests.e2e.tabs import ColorScheme, OpenTab, Tab
from tests.e2e.test_chat import CLIENTS, TRANSCRIPT, WSDUMP

IMAGES = ROOT / "docs" / "images"


@pytest.fixture
def page_url(cloud: Cloud, empty_chat: str) -> str:
    return cloud.page_url()


@pytest.fixture
def john(open_tab: OpenTab) -> Tab:
    return open_tab().opens().enters("John", "chalice")


# The protocol


def test_the_tutorials_transcript_between_two_tabs(open_tab: OpenTab) -> None:
    play_the_transcript([open_tab().opens() for _ in CLIENTS])


def play_the_transcript(two: Sequence[Any]) -> None:
    """`two` are tabs, or windows of any engine; neither has chosen a nickname."""
    people = dict(zip(CLIENTS, two, strict=True))
    seen: dict[str, list[str]] = {client: [] for client in CLIENTS}
    for step in TRANSCRIPT:
        person = people[step["client"]]
        if seen[step["client"]]:
            person.says(step["sends"])
        else:
            person.asks_for(step["sends"])
        for client, frames in step["receives"].items():
            seen[client] += frames
        for client in CLIENTS:
            people[client].sees(*seen[client])


def test_a_tab_and_wsdump(john: Tab, empty_chat: str) -> None:
    with Terminal(WSDUMP, empty_chat) as jenny:
        jenny.types("Jenny")
        jenny.types("/join chalice")
        john.reads("Jenny joined room.")
        john.says("Hi")
        john.reads("John: Hi")
        jenny.types("Hello John")
        john.reads("Jenny: Hello John")
        assert "< John: Hi\n" in jenny.screen
        jenny.presses_control_d()
    john.reads("Jenny left room.")


ODD_TEXTS = [
    '<img src="x" onerror="document.title = 1">',
    "</script><script>document.title = 1</script>",
    "javascript:document.title=1 data:text/html,<script>1</script>",
    "שלום hello مرحبا",
    "👩‍🚀 🇩🇪 é ﷽",
    "Hi\nJenny: yes\n\nSystem",
    "  spaces   stay ",
    "{chat} $& ${room} \\u0041",
]


def test_odd_texts_are_shown_as_they_are(john: Tab, open_tab: OpenTab) -> None:
    jenny = open_tab().opens().enters("Jenny", "chalice")
    john.reads("Jenny joined room.")
    for text in ODD_TEXTS:
        jenny.says(text)
        for person in (jenny, john):
            person.reads(f"Jenny: {text}")
        assert john.page.title() == f"chalice · {TITLE}"
    assert john.page.locator("#log :is(img, script, a)").count() == 0


def test_a_text_that_is_too_long_for_a_message_comes_in_several(
    john: Tab, arrive: Callable[..., Person]
) -> None:
    """A message to a client holds 32,768 bytes, with the name before each line."""
    jenny = arrive("Jenny", "chalice")
    john.reads("Jenny joined room.")
    john.says("x" * 32_762 + "/help me")
    jenny.hears("John: " + "x" * 32_762, "John:  /help me")

    john.says("\n".join(["é" * 162] * 100))  # with its name, 99 lines fill a message
    hundredth = f"John: {'é' * 162}"
    jenny.hears("\n".join([hundredth] * 99), hundredth)

    john.says("/nick LongerJohn")
    john.says("\n".join(["é" * 159] * 100))  # waits for the new name, with which 99 lines fill it
    hundredth = f"LongerJohn: {'é' * 159}"
    jenny.hears("John is now known as LongerJohn.", "\n".join([hundredth] * 99), hundredth)


def test_links_can_be_clicked_and_tell_nobody_where_they_are_from(john: Tab) -> None:
    john.says("see (https://example.com/a_(b)?q=1&r=2#x), http://example.org. ftp://x javascript:1")
    expect(john.page.locator("#log a")).to_have_count(2)
    link, other = john.page.locator("#log a").all()
    for attribute, value in (
        ("href", "https://example.com/a_(b)?q=1&r=2#x"),
        ("target", "_blank"),
        ("rel", "noopener noreferrer"),
    ):
        expect(link).to_have_attribute(attribute, value)
    expect(other).to_have_attribute("href", "http://example.org")


def test_the_policy_forbids_what_is_not_the_pages_own(john: Tab) -> None:
    john.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=//x onerror=1>')")
    john.awaits(lambda: len(john.violations) == 2)
    assert len(john.violations) == 2
    john.page.evaluate("window.violations = []")


# Names


def test_a_nickname_that_is_taken_or_not_valid_is_asked_for_again(
    john: Tab, open_tab: OpenTab
) -> None:
    jenny = open_tab().opens()
    jenny.asks_for("john", "chalice")
    jenny.shows("^Nickname john is already in use.$")
    jenny.asks_for("J:", "chalice")
    jenny.shows("^Nicknames are 1 to 32 printable characters")
    jenny.enters("Jenny", "chalice")
    john.reads("Jenny joined room.")


def test_the_nickname_is_kept_and_a_link_has_the_room(john: Tab) -> None:
    john.page.get_by_role("button", name="Leave").click()
    assert john.page.url.endswith("#chalice")
    other = Tab(john.context, john.page.url).opens()
    expect(other.page.get_by_label("Nickname")).to_have_value("John")
    expect(other.page.get_by_label("Room")).to_have_value("chalice")


def test_a_reload_keeps_the_nickname_the_room_and_what_is_being_typed(john: Tab) -> None:
    john.types("half a")
    john.page.reload()
    john.reads('Joined chat room "chalice"')
    expect(john.page.get_by_label("Your message")).to_have_value("half a")


# Keys and buttons


def test_it_is_used_by_keyboard_alone(open_tab: OpenTab) -> None:
    john = open_tab().opens()
    keyboard, text = john.page.keyboard, john.page.get_by_label("Your message")
    expect(john.page.get_by_label("Nickname")).to_be_focused()
    keyboard.type("John")
    keyboard.press("Enter")
    john.reads('Joined chat room "lobby"')
    expect(text).to_be_focused()
    keyboard.type("one")
    keyboard.press("Shift+Enter")
    keyboard.type("two")
    keyboard.press("Enter")
    john.reads("John: one\ntwo")
    keyboard.type("half")
    keyboard.press("Home")
    for key, shown in (
        ("ArrowUp", "one\ntwo"),
        ("ArrowUp", "one\ntwo"),
        ("ArrowDown", "half"),
    ):
        keyboard.press(key)
        expect(text).to_have_value(shown)
    for button, line in (("People", "John"), ("Help", "Commands available:")):
        john.page.get_by_role("button", name=button).press("Enter")
        expect(john.page.locator("#log .line:last-child .text")).to_contain_text(line)
        expect(text).to_be_focused()
    expect(text).to_have_value("half")
    john.page.get_by_role("button", name="Leave").press("Enter")
    expect(john.page.get_by_label("Nickname")).to_be_focused()


# README.md's pictures

SCENE = [
    ("John", "Hi Jenny! Did you get it to run?"),
    ("Jenny", "Yes, John, in a minute: make run 🙂"),
    ("Jenny", "It is the tutorial of https://aws.github.io/chalice"),
    ("John", "And on AWS?"),
    ("Jenny", "Three commands.\nIt costs nothing while nobody chats."),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_people_in_the_pictures_of_the_readme(
    open_tab: OpenTab, scheme: ColorScheme, tmp_path: Path
) -> None:
    """They arrive, and they chat. To take the pictures again, delete them and run this."""
    people = {}
    for name in ("John", "Jenny"):
        people[name] = open_tab(
            viewport={"width": 420, "height": 600},
            color_scheme=scheme,
            locale="en-GB",
            timezone_id="UTC",
        )
        people[name].page.clock.install(time="2026-01-01T10:12:00Z")
    john, jenny = people.values()
    john.opens().enters("John", "chalice")
    jenny.url = john.page.url
    jenny.opens().page.get_by_label("Nickname").fill("Jenny")
    takes_picture(f"arrival-{scheme}.png", john, jenny, tmp_path)
    jenny.enters("Jenny", "chalice")
    john.reads("Jenny joined room.")
    for name, text in SCENE:
        people[name].says(text)
        for person in people.values():
            person.reads(f"{name}: {text}")
    takes_picture(f"chat-{scheme}.png", john, jenny, tmp_path)


def takes_picture(name: str, left: Tab, right: Tab, elsewhere: Path) -> None:
    """Of two tabs; if README.md has it already, the new one goes elsewhere."""
    taken = [
        f"data:image/png;base64,{b64encode(tab.page.screenshot()).decode()}"
        for tab in (left, right)
    ]
    both = left.context.new_page()
    both.set_viewport_size({"width": 856, "height": 602})
    both.set_content(
        "<style>body { margin: 0; display: flex; gap: 12px }"
        "img { border: 1px solid #888; border-radius: 12px }</style>"
        + "".join(f"<img src='{image}'>" for image in taken)
    )
    picture = IMAGES / name
    both.screenshot(path=elsewhere / name if picture.exists() else picture, omit_background=True)
    both.close()
    assert picture.stat().st_size < 150_000
