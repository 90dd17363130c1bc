"""Tabs of a browser that show the chat's page."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, WebSocketRoute, sync_playwright

from scripts.browser import installed
from tests.e2e.actors import PATIENCE

# The lines from the server as the page shows them, all or the last ones; commands and the page's
# own notes are left out.
LINES = """(last) => {
    const lines = [...document.querySelectorAll("#log .line:not(.command, .note)")];
    return lines.slice(last ? -last : 0).map((line) => {
        const name = line.querySelector(".head bdi");
        return (name ? name.textContent + ": " : "") + line.querySelector(".text").textContent;
    });
}"""

PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "is_mobile": True,
    "has_touch": True,
}
ColorScheme = Literal["light", "dark"]

BACK = "^Connection lost, and back at "  # the line that tells of a lost connection

HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
    window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


class Tab:
    """Somebody in front of a tab with the page."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.url = url

    def opens(self) -> Tab:
        self.page.goto(self.url)
        return self

    def enters(self, name: str, room: str = "") -> Tab:
        """Asks to enter, and is let in."""
        self.asks_for(name, room)
        welcome = f"Using nickname: {name}\nType /help for list of commands."
        self.sees(welcome, *([f'Joined chat room "{room}"'] if room else []))
        if room:
            self.shows("^(Also here: |Nobody else is here yet)")
        return self

    def asks_for(self, name: str, room: str = "") -> None:
        self.page.get_by_label("Nickname").fill(name)
        self.page.get_by_label("Room").fill(room)
        self.page.get_by_role("button", name="Chat").click()

    def signs_in(self, name: str, password: str) -> None:
        """With Cognito's form."""
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def types(self, text: str) -> None:
        self.page.get_by_label("Your message").fill(text)

    def says(self, text: str) -> None:
        self.types(text)
        if self.page.evaluate("matchMedia('(pointer: coarse)').matches"):
            self.page.get_by_role("button", name="Send").click()
        else:
            self.page.keyboard.press("Enter")

    def sees(self, *lines: str) -> None:
        """Exactly these lines are on the page soon."""
        self._holds_soon(lambda: self.lines == list(lines))
        assert self.lines == list(lines)

    def reads(self, line: str) -> None:
        """It is the last line soon."""
        self._holds_soon(lambda: self.last_lines(1) == [line])
        assert self.last_lines(1) == [line]

    def shows(self, pattern: str) -> None:
        """A text that matches the pattern is on the page soon."""
        self.page.get_by_text(re.compile(pattern)).first.wait_for(timeout=PATIENCE * 1000)

    def awaits(self, condition: Callable[[], bool]) -> None:
        """The condition holds soon."""
        assert self._holds_soon(condition), inspect.getsource(condition)

    def _holds_soon(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition holds soon."""
        deadline = time.monotonic() + PATIENCE
        while not (holds := condition()) and time.monotonic() < deadline:
            self.page.wait_for_timeout(50)
        return holds

    @property
    def lines(self) -> list[str]:
        return self.last_lines()

    def last_lines(self, number: int | None = None) -> list[str]:
        lines: list[str] = self.page.evaluate(LINES, number)
        return lines

    @property
    def violations(self) -> list[str]:
        """The attempts that the Content Security Policy has stopped."""
        violations: list[str] = self.page.evaluate("window.violations")
        return violations


def is_accessible(tab: Tab) -> None:
    """axe finds nothing."""
    results = Axe().run(tab.page)
    assert results.violations_count == 0, results.generate_report()


def is_within(tab: Tab) -> bool:
    """Nothing is wider than the window."""
    wide: bool = tab.page.evaluate(
        "[...document.querySelectorAll('*')].every((it) => it.scrollWidth <= innerWidth)"
    )
    return wide


class Network:
    """The network between a page and the chat, which can be cut without a word to either."""

    def __init__(self, tab: Tab) -> None:
        self.sent: list[str] = []  # by the page
        self.received: list[str] = []  # by the page
        self.is_up = True
        self.clients: list[WebSocketRoute] = []
        self.servers: list[WebSocketRoute] = []
        tab.page.route_web_socket(re.compile("."), self._connect)

    def _connect(self, client: WebSocketRoute) -> None:
        if not self.is_up:
            client.close()
            return
        self.clients.append(client)
        server = client.connect_to_server()
        self.servers.append(server)

        def pass_on(message: str | bytes) -> None:
            self.sent.append(str(message))
            if self.is_up:
                server.send(message)

        def pass_back(message: str | bytes) -> None:
            if self.is_up:
                client.send(message)
                self.received.append(str(message))

        client.on_message(pass_on)
        client.on_close(lambda code, reason: server.close() if self.is_up else None)
        server.on_message(pass_back)
        server.on_close(lambda code, reason: client.close() if self.is_up else None)


OpenTab = Callable[..., Tab]


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=installed(), args=["--no-sandbox", *arguments]
        )


@contextmanager
def tabs(browser: Browser, url: str) -> Iterator[OpenTab]:
    """Opens tabs, each for somebody with a browser of their own. An error in one is a failure."""
    opened: list[Tab] = []

    def open_tab(**options: Any) -> Tab:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE * 1000)
        context.add_init_script(WATCH)
        opened.append(Tab(context, url))
        return opened[-1]

    try:
        yield open_tab
        for tab in opened:
            assert [tab.errors, tab.violations] == [[], []]
    finally:
        for tab in opened:
            tab.context.close()
