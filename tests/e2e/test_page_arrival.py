"""The page greets a newcomer: with the people in the room, an invitation to copy, and lists."""

from __future__ import annotations

import re

from playwright.sync_api import Dialog, expect

from tests.e2e.small_chat import SmallChat
from tests.e2e.tabs import BACK, PHONE, OpenTab, Tab

PEOPLE = [f"Person{n}" for n in range(1, 121)]


def notes(tab: Tab) -> list[str]:
    """What the page says by itself."""
    return [text.strip() for text in tab.page.locator("#log .note .text").all_text_contents()]


def is_told(tab: Tab, *expected: str) -> None:
    tab.awaits(lambda: notes(tab) == list(expected))
    assert notes(tab) == list(expected)


# On arrival


def test_it_says_who_is_here(open_tab: OpenTab, chat: SmallChat) -> None:
    """With one /ls, which is not shown."""
    chat.members = ["Rose", "Zoë", "Bob"]
    john = open_tab().opens().enters("John", "tea")
    is_told(john, "Also here: Rose, Zoë, Bob")
    assert john.page.locator(".command").count() == 0
    assert chat.heard == ["John", "/join tea", "/ls"]


def test_it_says_so_in_every_room_and_not_after_a_reconnect(
    open_tab: OpenTab, chat: SmallChat
) -> None:
    chat.members = ["Rose"]
    john = open_tab().opens().enters("John", "tea")
    is_told(john, "Also here: Rose")
    john.says("/join coffee")
    is_told(john, "Also here: Rose", "Also here: Rose")
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.shows(BACK)
    john.says("Hi")
    john.reads("John: Hi")
    is_told(john, "Also here: Rose", "Also here: Rose")
    assert chat.heard.count("/ls") == 2


def test_alone_one_can_copy_an_invitation(open_tab: OpenTab) -> None:
    john = open_tab(permissions=["clipboard-read", "clipboard-write"]).opens().enters("John", "tea")
    is_told(john, "Nobody else is here yet. Copy the invitation")
    john.page.get_by_role("button", name="Copy the invitation").click()
    expect(john.page.get_by_role("button", name="Copied")).to_be_visible()
    assert john.page.evaluate("navigator.clipboard.readText()") == john.page.url
    assert john.page.url.endswith("/#tea")


def test_where_nothing_can_be_copied_the_address_is_shown(open_tab: OpenTab) -> None:
    john = open_tab()
    john.page.add_init_script("delete Navigator.prototype.clipboard")
    john.opens().enters("John", "tea")
    shown: list[str] = []

    def close(dialog: Dialog) -> None:
        shown.append(dialog.default_value)
        dialog.accept()

    john.page.once("dialog", close)
    john.page.get_by_role("button", name="Copy the invitation").click()
    john.awaits(lambda: bool(shown))
    assert shown == [john.page.url]


def test_many_are_counted(open_tab: OpenTab, chat: SmallChat) -> None:
    chat.members = PEOPLE
    john = open_tab(**PHONE).opens().enters("John", "tea")
    is_told(john, f"Also here: {', '.join(PEOPLE[:20])}, and 100 more")


# Lists


def test_a_hundred_and_twenty_people_do_not_fill_two_screens(
    open_tab: OpenTab, chat: SmallChat
) -> None:
    chat.members = PEOPLE
    john = open_tab(**PHONE).opens().enters("John", "tea")
    is_told(john, f"Also here: {', '.join(PEOPLE[:20])}, and 100 more")
    john.page.get_by_role("button", name="People").click()
    john.reads("\n".join([*PEOPLE, "John"]))
    box = john.page.locator("#log .line").last.bounding_box()
    assert box
    assert box["height"] < 1.25 * 740


def test_rooms_are_links_that_join(open_tab: OpenTab, chat: SmallChat) -> None:
    chat.rooms = ["coffee", "dev!", "50%"]
    john = open_tab().opens().enters("John")
    john.page.get_by_role("button", name="Rooms").click()
    john.reads("coffee\ndev!\n50%")
    john.page.get_by_role("link", name="50%").click()
    john.reads('Joined chat room "50%"')
    assert "/join 50%" in chat.heard


def test_a_list_that_is_cut_off_says_so(open_tab: OpenTab, chat: SmallChat) -> None:
    chat.rooms = ["coffee", "... and more rooms."]
    john = open_tab().opens().enters("John")
    john.says("/ls")
    john.reads("coffee\n... and more rooms.")
    assert john.page.locator("#log a").all_text_contents() == ["coffee"]


# Comings and goings


def test_twelve_joins_are_one_line(open_tab: OpenTab, chat: SmallChat) -> None:
    john = open_tab(**PHONE).opens().enters("John", "tea")
    is_told(john, "Nobody else is here yet. Copy the invitation")
    chat.sends(*(f"{name} joined room." for name in PEOPLE[:12]))
    john.reads(f"{', '.join(PEOPLE[:12])} joined room.")
    box = john.page.locator("#log .line").last.bounding_box()
    assert box
    assert box["height"] < 740 / 6
    chat.sends("Person1 left room.\nPerson2 left room.")
    john.reads("Person1, Person2 left room.")
    chat.sends("Person3 is now known as Rose.", "Rose: Hi", "Person9 joined room.")
    john.reads("Person9 joined room.")
    assert john.lines[-3:] == [
        "Person3 is now known as Rose.",
        "Rose: Hi",
        "Person9 joined room.",
    ]


# Invitations and commands


def test_a_pasted_invitation_has_a_preview(open_tab: OpenTab) -> None:
    john = open_tab().opens()
    description = john.page.locator("meta[name=description]").get_attribute("content")
    assert re.search("invited to a chat", description or "")
    for meta in john.page.locator("meta[name=theme-color]").all():
        scheme = "dark" if "dark" in (meta.get_attribute("media") or "") else "light"
        john.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert meta.get_attribute("content") == john.page.evaluate(
            "'#' + getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
            ".map((part) => (+part).toString(16).padStart(2, '0')).join('')"
        )


def test_a_line_that_is_no_command_can_be_sent_as_a_text(
    open_tab: OpenTab, chat: SmallChat
) -> None:
    john = open_tab().opens().enters("John", "tea")
    john.says("/shrug")
    john.reads("Unknown command: shrug")
    john.awaits(lambda: len(notes(john)) == 2)
    assert notes(john)[-1] == "Put a space in front to send it as a text."
    john.says(" /shrug")
    john.reads("John:  /shrug")


def test_on_a_phone_enter_breaks_the_line(open_tab: OpenTab, chat: SmallChat) -> None:
    john = open_tab(**PHONE).opens().enters("John", "tea")
    text = john.page.get_by_label("Your message")
    expect(text).to_have_attribute("enterkeyhint", "enter")
    text.press_sequentially("one\ntwo")
    expect(text).to_have_value("one\ntwo")
    john.page.get_by_role("button", name="Send").tap()
    john.reads("John: one\ntwo")
