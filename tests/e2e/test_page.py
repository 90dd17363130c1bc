"""Chatting on the page, in a browser, with others on the page or in a terminal."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, WebSocketRoute, expect

from chalicelib.page import TITLE
from emulator.emulator import ROOT
from tests.e2e.actors import Person, Terminal
from tests.e2e.conftest import Cloud
from tests.e2e.tabs import OpenTab, Tab, tabs
from tests.e2e.test_chat import CLIENTS, TRANSCRIPT, WSDUMP

ColorScheme = Literal["light", "dark"]
IMAGES = ROOT / "docs" / "images"
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "is_mobile": True,
    "has_touch": True,
}


@pytest.fixture
def page_url(cloud: Cloud, chat_url: str) -> str:
    url = cloud.emulator.page_url()
    assert url
    return url


@pytest.fixture
def open_tab(browser: Browser, page_url: str, empty_chat: str) -> Iterator[OpenTab]:
    with tabs(browser, page_url) as open_tab:
        yield open_tab


@pytest.fixture
def john(open_tab: OpenTab) -> Tab:
    john = open_tab().opens()
    john.enters("John", "chalice")
    return john


# The protocol


def test_the_tutorials_transcript_between_two_tabs(open_tab: OpenTab) -> None:
    people = {client: open_tab().opens() for client in CLIENTS}
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
    jenny = open_tab().opens()
    jenny.enters("Jenny", "chalice")
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


def test_only_the_server_speaks_as_the_server(open_tab: OpenTab) -> None:
    """Nobody can be called Usage in this chat, but a person in another might."""
    john = open_tab()
    server = fake_server(john)
    john.opens().enters("John", "chalice")
    author = john.page.locator("#log .line:last-child bdi")
    server[0].send("Usage: a\nUsage: /join {chat_room_name}")
    john.reads("Usage: a\n/join {chat_room_name}")
    expect(author).to_have_text("Usage")
    server[0].send("Usage: /join {chat_room_name}")
    john.reads("Usage: /join {chat_room_name}")
    assert author.count() == 0


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


def test_the_title_counts_what_was_missed(john: Tab, arrive: Callable[..., Person]) -> None:
    jenny = arrive("Jenny", "chalice")
    john.reads("Jenny joined room.")
    john.page.evaluate(HIDE, True)
    for text in ("Hi", "John?"):
        jenny.says(text)
        john.reads(f"Jenny: {text}")
        jenny.hears(f"Jenny: {text}")
    assert john.page.title() == f"(2, your name) chalice · {TITLE}"
    john.page.evaluate(HIDE, False)
    assert john.page.title() == f"chalice · {TITLE}"


HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


# The looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    open_tab: OpenTab, arrive: Callable[..., Person], scheme: ColorScheme, device: dict[str, Any]
) -> None:
    john = open_tab(color_scheme=scheme, **device).opens()
    is_accessible(john)
    john.asks_for("a:b")
    john.shows("^Nicknames are")
    is_accessible(john)
    john.enters("John", "chalice")
    for name in ("Jenny", "Zoë", "Bob"):
        person = arrive(name, "chalice")
        person.says("see https://example.com")
        person.hears(f"{name}: see https://example.com")
        person.leaves()
        john.reads(f"{name} left room.")
    john.says("Hi")
    john.says("/help")
    john.awaits(lambda: "Commands" in john.lines[-1])
    is_accessible(john)
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.says("Hello?")
    is_accessible(john)


def is_accessible(tab: Tab) -> None:
    results = Axe().run(tab.page)
    assert results.violations_count == 0, results.generate_report()


def test_on_a_phone_nothing_is_covered_or_wider_than_the_screen(open_tab: OpenTab) -> None:
    john = open_tab(**PHONE).opens()
    assert is_within(john)
    john.enters("John", "chalice")
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
    john = open_tab(viewport={"width": 640, "height": 360}, device_scale_factor=2).opens()
    john.enters("John", "chalice")
    john.says("Hi")
    john.reads("John: Hi")
    assert is_within(john)
    assert bottom(john.page.locator("#log .line").last) <= top(john.page.locator("#compose"))


def is_within(tab: Tab) -> bool:
    wide: bool = tab.page.evaluate(
        "[...document.querySelectorAll('*')].every((it) => it.scrollWidth <= innerWidth)"
    )
    return wide


def top(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box
    return box["y"]


def bottom(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box
    return box["y"] + box["height"]


# Many lines


def test_old_lines_leave_and_many_lines_take_no_more_memory(open_tab: OpenTab) -> None:
    """Six thousand lines: six minutes of a chat with a thousand a minute."""
    john = open_tab()
    server = fake_server(john)
    john.opens().enters("John", "chalice")
    nodes, heap = [], []
    for hundreds in range(0, 6_000, 500):
        for n in range(hundreds, hundreds + 500):
            server[0].send(f"p{n % 40}: line {n}, see https://example.com/{n} or not")
        john.reads(f"p{n % 40}: line {n}, see https://example.com/{n} or not")
        measured = metrics(john)
        nodes.append(measured["Nodes"])
        heap.append(measured["JSHeapUsedSize"])
    assert john.page.locator("#log .line").count() == 1_000
    assert nodes[-1] < 1.1 * nodes[2]
    assert heap[-1] < 1.2 * heap[2]


def test_long_lines_leave_sooner(open_tab: OpenTab) -> None:
    john = open_tab()
    server = fake_server(john)
    john.opens().enters("John", "chalice")
    for n in range(40):
        server[0].send(f"Jenny: {n}{'x' * 100_000}")
    john.awaits(lambda: john.lines[-1].startswith("Jenny: 39x"))
    assert john.page.locator("#log .line").count() == 9


def fake_server(tab: Tab) -> list[WebSocketRoute]:
    """Lets John in; the test sends further lines over the sockets that this returns."""
    sockets: list[WebSocketRoute] = []

    def answer(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.on_message(lambda frame: socket.send(str(LETS_IN.get(str(frame)))))

    tab.page.route_web_socket(re.compile("."), answer)
    return sockets


LETS_IN = {
    "John": "Using nickname: John\nType /help for list of commands.",
    "/join chalice": 'Joined chat room "chalice"',
}


def metrics(tab: Tab) -> dict[str, float]:
    """The browser's metrics of a tab, after a garbage collection."""
    session = tab.context.new_cdp_session(tab.page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    found = session.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in found}


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
