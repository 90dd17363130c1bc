"""What the page says was delivered was delivered, once and in the right room."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.e2e.small_chat import TOO_FAST, WENT_WRONG, SmallChat
from tests.e2e.tabs import OpenTab, Tab

SECONDS = 1_000  # milliseconds
MINUTES = 60 * SECONDS
JOINED = 'Joined chat room "tea"'


@pytest.fixture
def john(open_tab: OpenTab, chat: SmallChat) -> Tab:
    """In the room tea, with a clock that only the test moves on."""
    john = open_tab()
    john.page.clock.install()
    john.opens().enters("John", "tea")
    settles(john, chat, "/ls")
    chat.heard.clear()
    return john


def settles(tab: Tab, chat: SmallChat, frame: str) -> None:
    """The chat hears a frame, once the page's pauses between frames are over."""
    runs_until(tab, lambda: frame in chat.heard, 300)


def runs_until(tab: Tab, condition: Callable[[], bool], step: int = 1 * SECONDS) -> None:
    """Runs the page's clock until the condition holds."""

    def holds() -> bool:
        tab.page.clock.run_for(step)
        return condition()

    tab.awaits(holds)
    assert condition()


def hears_nothing_more(tab: Tab, chat: SmallChat, *frames: str) -> None:
    """In eight seconds of the page's clock, the chat has heard these frames and no others."""
    for _ in range(8):
        tab.page.clock.run_for(1 * SECONDS)
        tab.page.wait_for_timeout(10)
    assert chat.heard == list(frames)


# Answers that come late


@pytest.mark.parametrize("command", ["/join coffee", "/quit"])
def test_a_text_waits_until_the_room_has_changed(john: Tab, chat: SmallChat, command: str) -> None:
    """Whatever else is heard meanwhile, and however long it takes."""
    chat.instead[command] = [[]]
    john.says(command)
    john.says("Hi")
    settles(john, chat, command)
    chat.sends("Jenny joined room.", "Jenny: Hello", "Bob left room.")
    john.awaits(lambda: "Bob left room." in john.lines)
    hears_nothing_more(john, chat, command)
    chat.sends('Left chat room "tea"')
    if command != "/quit":
        john.reads('Left chat room "tea"')
        hears_nothing_more(john, chat, command)
        chat.sends('Joined chat room "coffee"')
    settles(john, chat, "Hi")


def test_a_command_without_an_answer_means_that_the_connection_is_lost(
    john: Tab, chat: SmallChat
) -> None:
    """It is sent again once; a text behind it is not sent to the old room."""
    chat.instead["/join coffee"] = [[], []]
    john.says("/join coffee")
    john.says("Hi")
    for line in ("^Connection lost, and back at", "^Not sent: the room has not c"):
        settles(john, chat, "/join coffee")
        chat.heard.clear()
        john.page.clock.run_for(20 * SECONDS)
        runs_until(john, lambda line=line: shows(john, line) == 1)  # type: ignore[misc]
    hears_nothing_more(john, chat, "John", "/join tea")


def shows(tab: Tab, line: str) -> int:
    return tab.page.get_by_text(re.compile(line)).count()


def test_quit_outside_a_room_has_no_answer_and_holds_nothing_up(john: Tab, chat: SmallChat) -> None:
    for frame in ("/quit", "/quit", "/join coffee", "Hi"):
        john.says(frame)
    settles(john, chat, "Hi")
    john.reads("John: Hi")
    assert [frame for frame in chat.heard if frame != "/ls"][-2:] == ["/join coffee", "Hi"]


def test_a_text_for_a_room_that_was_refused_goes_to_no_other(john: Tab, chat: SmallChat) -> None:
    refusal = "Room names are 1 to 64 printable characters, without spaces."
    chat.instead["/join co\u00adffee"] = [[]]
    for text in ("/join co\u00adffee", "Hi", "/join coffee", "Hello"):
        john.says(text)
    settles(john, chat, "/join co\u00adffee")
    chat.sends(refusal)
    settles(john, chat, "Hello")
    assert "Hi" not in chat.heard
    assert john.page.locator(".failed .text").all_inner_texts() == ["Hi"]
    john.reads("John: Hello")


@pytest.mark.parametrize("late", [TOO_FAST, WENT_WRONG])
def test_an_own_echo_always_settles_a_text(john: Tab, chat: SmallChat, late: str) -> None:
    """An error that belongs to an earlier frame comes before it."""
    chat.instead["Hi"] = [[late]]
    john.says("Hi")
    settles(john, chat, "Hi")
    john.page.clock.run_for(2 * SECONDS)
    chat.sends("John: Hi")
    john.awaits(lambda: "John: Hi" in john.lines)
    hears_nothing_more(john, chat, "Hi")
    assert john.page.locator("#log .own .text").all_inner_texts() == ["Hi"]
    assert john.page.locator(".failed").count() == 0


def test_a_late_error_does_not_end_the_waiting_for_a_room(john: Tab, chat: SmallChat) -> None:
    chat.instead["/join coffee"] = [[WENT_WRONG]]
    john.says("/join coffee")
    john.says("Hi")
    settles(john, chat, "/join coffee")
    john.page.clock.run_for(2 * SECONDS)
    assert chat.heard == ["/join coffee"]
    chat.sends('Left chat room "tea"', 'Joined chat room "coffee"')
    settles(john, chat, "Hi")


def test_a_text_that_came_too_fast_is_sent_again(john: Tab, chat: SmallChat) -> None:
    chat.instead["Hi"] = [[TOO_FAST]]
    john.says("Hi")
    runs_until(john, lambda: "John: Hi" in john.lines)
    assert chat.heard == ["Hi", "Hi"]
    assert "John: Hi" in john.lines


def test_texts_of_others_do_not_answer_for_the_server(open_tab: OpenTab, chat: SmallChat) -> None:
    """A lost answer to /join, in a busy room: typed texts do not wait for ten minutes."""
    john = open_tab()
    john.page.clock.install()
    chat.instead["/join tea"] = [[]]
    john.opens().asks_for("John", "tea")
    john.awaits(lambda: "/join tea" in chat.heard)
    john.says("Hi")
    chat.sends("Jenny: Hello")
    john.awaits(lambda: "Jenny: Hello" in john.lines)

    def is_back() -> bool:
        chat.sends("Jenny: and on")
        return chat.heard.count("John") > 1

    runs_until(john, is_back)
    assert "Jenny: and on" in john.lines
    settles(john, chat, "Hi")


# Clocks


def test_a_clock_that_is_set_back_holds_nothing_up(john: Tab, chat: SmallChat) -> None:
    john.says("one")
    settles(john, chat, "one")
    john.page.evaluate("Date.now = ((now) => () => now() - 3_600_000)(Date.now)")
    john.says("two")
    settles(john, chat, "two")
    john.reads("John: two")


def test_after_a_laptops_sleep_it_asks_whether_it_is_still_connected(
    john: Tab, chat: SmallChat
) -> None:
    """Clocks that only go forward may stand still meanwhile, and start again."""
    john.page.evaluate("Date.now = ((now) => () => now() + 3_600_000)(Date.now)")
    runs_until(john, lambda: "/room" in chat.heard, 5 * SECONDS)


# What others change in the page


@pytest.mark.parametrize("text", ["Hi", "two\nlines"])
def test_what_is_sent_is_what_was_typed(john: Tab, chat: SmallChat, text: str) -> None:
    """Translators, extensions and filters of words change the texts in a page."""
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.says(text)
    expect(john.page.locator("#waiting .text")).to_have_text(text)
    john.page.evaluate(TRANSLATE)
    settles(john, chat, text)
    john.awaits(lambda: not john.page.locator("#waiting .line").count())
    assert john.page.locator("#waiting .line").count() == 0
    john.says("next")
    settles(john, chat, "next")


TRANSLATE = """() => {
    for (const text of document.querySelectorAll("#waiting .text")) {
        const font = document.createElement("font");
        font.textContent = "traduit";
        text.replaceChildren(font);
    }
}"""


def test_own_words_and_names_are_not_translated_and_others_words_are(
    john: Tab, chat: SmallChat
) -> None:
    chat.sends("Rose: Good morning")
    john.reads("Rose: Good morning")
    john.says("Hi")
    settles(john, chat, "Hi")
    john.reads("John: Hi")
    translated = "(element) => element.translate"
    log = john.page.locator("#log")
    assert log.get_by_text("Good morning", exact=True).evaluate(translated)
    assert not log.get_by_text("Rose", exact=True).evaluate(translated)
    assert not log.get_by_text("Hi", exact=True).evaluate(translated)
    assert not john.page.locator("#place").evaluate(translated)


# API Gateway


def test_a_name_like_api_gateways_frames_marks_no_delivered_text_as_lost(
    john: Tab, chat: SmallChat
) -> None:
    """The server refuses such names."""
    chat.sends('{"message": Hi\n{"message": "there"')
    john.reads('{"message": Hi\n"there"')
    gateways = '{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}'
    chat.instead["Hi"] = [[gateways, "John: Hi"]]
    john.says("Hi")
    settles(john, chat, "Hi")
    john.reads("John: Hi")
    assert john.page.locator(".failed").count() == 0


def test_only_the_server_speaks_as_the_server(open_tab: OpenTab, chat: SmallChat) -> None:
    """Nobody can be called Usage in this chat, but a person in another might."""
    john = open_tab().opens().enters("John", "tea")
    author = john.page.locator("#log .line:last-child bdi")
    chat.sends("Usage: a\nUsage: /join {chat_room_name}")
    john.reads("Usage: a\n/join {chat_room_name}")
    expect(author).to_have_text("Usage")
    chat.sends("Usage: /join {chat_room_name}")
    john.reads("Usage: /join {chat_room_name}")
    assert author.count() == 0


# Keys


COMPOSES = """(input, [text, isComposing, then]) => {
    input.focus();
    input.dispatchEvent(new CompositionEvent("compositionstart", {data: ""}));
    input.value = text;
    input.dispatchEvent(new CompositionEvent("compositionupdate", {data: text}));
    const end = () => input.dispatchEvent(new CompositionEvent("compositionend", {data: text}));
    const press = (options) => input.dispatchEvent(new KeyboardEvent("keydown", {
        key: "Enter", bubbles: true, cancelable: true, ...options,
    }));
    if (!isComposing) end();
    press({keyCode: 229, isComposing});
    if (isComposing) end();
    if (then) press({keyCode: 13});
}"""


def test_enter_in_a_composition(john: Tab, chat: SmallChat) -> None:
    """Enter ends a composition, and sends Korean: there it chooses nothing."""
    field = john.page.get_by_label("Your message")
    for engine, text, is_composing, then, is_sent in (
        ("Safari, Japanese", "日本", False, False, False),
        ("Chrome, Japanese", "日本", True, False, False),
        ("Safari, Korean", "안녕", False, False, True),
        ("Chrome, Korean", "안녕", True, False, True),
        ("Chrome, Korean, with a second event", "안녕", True, True, True),
    ):
        chat.heard.clear()
        field.evaluate(COMPOSES, [text, is_composing, then])
        hears_nothing_more(john, chat, *([text] if is_sent else []))
        assert field.input_value() == ("" if is_sent else text), engine


# Rooms


@pytest.mark.parametrize("way", ["form", "address", "link", "command"])
def test_spaces_in_a_rooms_name_are_seen_before_the_room_is(
    open_tab: OpenTab, chat: SmallChat, way: str
) -> None:
    """The server takes one word: two clubs would meet in Book."""
    john = open_tab()
    if way == "address":
        john.url += "#Book%20Club"
    john.opens()
    if way == "address":
        expect(john.page.get_by_label("Room")).to_have_value("Book-Club")
    john.asks_for("John", {"form": " Book Club ", "address": "Book-Club"}.get(way, ""))
    john.shows("^You are John$")
    if way == "link":
        john.page.evaluate("location.hash = '#Book%20Club'")
    elif way == "command":
        john.says("/join Book Club")
        expect(john.page.locator(".command .text")).to_have_text("/join Book-Club")
    john.awaits(lambda: 'Joined chat room "Book-Club"' in john.lines)
    assert 'Joined chat room "Book-Club"' in john.lines
    assert "/join Book-Club" in chat.heard
    assert john.page.url.endswith("#Book-Club")


def test_a_room_in_the_address_that_is_too_long_is_ignored(
    open_tab: OpenTab, chat: SmallChat
) -> None:
    john = open_tab()
    john.url += f"#{'x' * 40_000}"
    john.opens()
    expect(john.page.get_by_label("Room")).to_have_value("lobby")
    john.enters("John", "tea")
    john.page.evaluate("location.hash = 'y'.repeat(65)")
    john.says("Hi")
    john.reads("John: Hi")
    assert [frame[:10] for frame in chat.heard if frame != "/ls"] == ["John", "/join tea", "Hi"]


def test_a_command_is_never_split(john: Tab, chat: SmallChat) -> None:
    long = f"/join {'x' * 33_000}"
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.says(long)
    john.says("Hi")
    hears_nothing_more(john, chat, "John", "/join tea")
    assert john.page.locator(".failed .head").all_inner_texts() == [
        "Not sent: too long",
        "Not sent: the room has not changed",
    ]
    john.says("/help")
    settles(john, chat, "/help")


# Leaving and coming back


def test_a_reload_after_quit_is_in_no_room(john: Tab, chat: SmallChat) -> None:
    john.says("/quit")
    settles(john, chat, "/quit")
    john.reads('Left chat room "tea"')
    john.page.reload()
    john.shows("^You are John$")
    expect(john.page.locator("#place")).to_have_text("No room")
    hears_nothing_more(john, chat, "/quit", "John")


def test_leave_offers_the_name_that_one_has(john: Tab, chat: SmallChat) -> None:
    john.says("/nick Jonathan")
    settles(john, chat, "/nick Jonathan")
    john.reads("Nickname is: Jonathan")
    john.page.get_by_role("button", name="Leave").click()
    expect(john.page.get_by_label("Nickname")).to_have_value("Jonathan")


def test_when_the_address_is_gone_for_good_a_button_reloads(john: Tab, chat: SmallChat) -> None:
    """And keeps the typed text."""
    button = john.page.get_by_role("button", name="Reload the page")
    chat.is_up = False
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.says("Hi")
    expect(button).to_be_hidden()
    runs_until(john, button.is_visible, 30 * SECONDS)
    chat.is_up = True
    button.click()
    expect(john.page.get_by_label("Your message")).to_have_value("Hi\n")
    john.shows("^You are John$")


# Browsers


def test_it_works_in_the_oldest_browsers(open_tab: OpenTab, chat: SmallChat) -> None:
    """Chrome 111, Firefox 115 and Safari 16.4 lack some of these."""
    john = open_tab()
    john.page.add_init_script(
        "delete String.prototype.toWellFormed; delete String.prototype.replaceAll;"
        "delete URL.canParse; delete Object.groupBy; delete Array.prototype.toSorted"
    )
    john.opens().enters("John", "tea")
    john.says("see https://example.com !")
    john.reads("John: see https://example.com !")
    assert john.page.locator("#log a").count() == 1
    expect(john.page.get_by_text(NEEDS)).to_be_hidden()


def test_an_older_browser_is_told_so(open_tab: OpenTab, chat: SmallChat) -> None:
    """Its script has syntax that the browser does not know."""
    john = open_tab()
    john.page.route(
        chat.url,
        lambda route: route.fulfill(
            body=route.fetch().text().replace("<script>", "<script>of tomorrow;"),
            content_type="text/html; charset=utf-8",
        ),
    )
    john.opens()
    expect(john.page.get_by_text(NEEDS)).to_be_visible()
    expect(john.page.get_by_label("Nickname")).to_be_hidden()
    (error,) = john.errors
    assert "Unexpected" in error
    john.errors.clear()


NEEDS = re.compile(r"needs JavaScript, and Chrome or Edge \d+, Firefox \d+, Safari \d+\.\d, or")


def test_without_javascript_it_says_so(open_tab: OpenTab) -> None:
    john = open_tab(java_script_enabled=False).opens()
    expect(john.page.get_by_text(NEEDS)).to_be_visible()
    expect(john.page.get_by_label("Nickname")).to_be_hidden()
    john.page.evaluate("window.violations = []")
