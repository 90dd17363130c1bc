"""Chromium, Firefox and WebKit, with one interface.

Playwright drives Chromium. Firefox and WebKit are those of the system, and take the commands of
WebDriver: Firefox over its own protocol Marionette, WebKit over HTTP.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Protocol

from playwright.sync_api import Browser

from scripts.browser import other
from tests.e2e.actors import PATIENCE
from tests.e2e.conftest import free_port
from tests.e2e.tabs import chromium

Command = tuple[str, str, str]  # Marionette's name, and the method and path of WebDriver
NAVIGATE = ("Navigate", "POST", "url")
WINDOW = ("GetWindowHandle", "GET", "window")
NEW_WINDOW = ("NewWindow", "POST", "window/new")
SWITCH = ("SwitchToWindow", "POST", "window")
CLOSE = ("CloseWindow", "DELETE", "window")
EXECUTE = ("ExecuteScript", "POST", "execute/sync")
FIND = ("FindElement", "POST", "element")
CLICK = ("ElementClick", "POST", "element/{id}/click")
CLEAR = ("ElementClear", "POST", "element/{id}/clear")
SEND_KEYS = ("ElementSendKeys", "POST", "element/{id}/value")
KEYS = {"Enter": "\ue007", "Shift+Enter": "\ue008\ue007\ue008"}  # WebDriver, "Keyboard actions"


class Window(Protocol):
    """A window of a browser. A selector is CSS, or XPath if it begins with `//`."""

    def goes_to(self, url: str) -> None: ...

    def runs(self, function: str, argument: object = None) -> Any:
        """Calls a function of JavaScript in the page."""

    def clicks(self, selector: str) -> None: ...

    def fills(self, selector: str, text: str) -> None:
        """Replaces the text of an input; the text is one line."""

    def types(self, selector: str, text: str) -> None:
        """Key by key; the text is one line."""

    def presses(self, selector: str, key: str) -> None:
        """`Enter` or `Shift+Enter`."""

    def closes(self) -> None: ...


NewWindow = Callable[[], Window]


# Chromium


class ChromiumsWindow:
    def __init__(self, browser: Browser) -> None:
        self._page = browser.new_page(permissions=["clipboard-write"])
        self._page.set_default_timeout(PATIENCE * 1000)

    def goes_to(self, url: str) -> None:
        self._page.goto(url)

    def runs(self, function: str, argument: object = None) -> Any:
        return self._page.evaluate(function, argument)

    def clicks(self, selector: str) -> None:
        self._page.click(selector)

    def fills(self, selector: str, text: str) -> None:
        self._page.fill(selector, text)

    def types(self, selector: str, text: str) -> None:
        self._page.locator(selector).press_sequentially(text)

    def presses(self, selector: str, key: str) -> None:
        self._page.press(selector, key)

    def closes(self) -> None:
        self._page.close()


@contextmanager
def chromiums() -> Iterator[NewWindow]:
    with chromium() as browser:
        yield lambda: ChromiumsWindow(browser)


# WebDriver


class Driver(ABC):
    """A session of WebDriver. It ends with its last window, so its first one stays open."""

    first = ""
    window = ""  # that gets the commands

    @abstractmethod
    def answer(self, command: Command, parameters: dict[str, Any]) -> Any:
        """The result of a command; raises an error if it fails."""

    def switches(self, window: str) -> None:
        if self.window != window:
            self.answer(SWITCH, {"handle": window})
            self.window = window

    def element(self, selector: str) -> str:
        using = "xpath" if selector.startswith("//") else "css selector"
        (element,) = self.answer(FIND, {"using": using, "value": selector}).values()
        return str(element)


class DriversWindow:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        driver.first = driver.first or driver.answer(WINDOW, {})
        self._handle = driver.answer(NEW_WINDOW, {"type": "window"})["handle"]

    def goes_to(self, url: str) -> None:
        self._answer(NAVIGATE, url=url)

    def runs(self, function: str, argument: object = None) -> Any:
        script = f"return ({function})(arguments[0])"
        return self._answer(EXECUTE, script=script, args=[argument])

    def clicks(self, selector: str) -> None:
        self._answer(CLICK, selector)

    def fills(self, selector: str, text: str) -> None:
        self._answer(CLEAR, selector)
        self.types(selector, text)

    def types(self, selector: str, text: str) -> None:
        if text:
            self._answer(SEND_KEYS, selector, text=text)

    def presses(self, selector: str, key: str) -> None:
        self._answer(SEND_KEYS, selector, text=KEYS[key])

    def closes(self) -> None:
        self._answer(CLOSE)
        self._driver.switches(self._driver.first)

    def _answer(self, command: Command, selector: str = "", **parameters: Any) -> Any:
        self._driver.switches(self._handle)
        if selector:
            parameters["id"] = self._driver.element(selector)
        return self._driver.answer(command, parameters)


# Firefox


class Marionette(Driver):
    """Mozilla's "Marionette Protocol": messages of JSON, with their length before a colon."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self._socket.makefile("rb")
        self._read()  # its greeting
        self.answer(("NewSession", "", ""), {})

    def answer(self, command: Command, parameters: dict[str, Any]) -> Any:
        message = json.dumps([0, 0, f"WebDriver:{command[0]}", parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, _, error, result = self._read()
        assert not error, f"{command}: {error}"
        return result.get("value", result) if isinstance(result, dict) else result

    def _read(self) -> Any:
        length = b""
        while (byte := self._file.read(1)) not in (b":", b""):
            length += byte
        return json.loads(self._file.read(int(length)))


@contextmanager
def firefoxes(profile: Path) -> Iterator[NewWindow]:
    (profile / "user.js").write_text('user_pref("marionette.port", 0);\n')
    command = (
        str(other("Firefox")),
        "--headless",
        "--marionette",
        "--no-remote",
        "--profile",
        profile,
    )
    port = profile / "MarionetteActivePort"
    with started(*command):
        await_start(lambda: port.read_text().isdecimal())
        driver = Marionette(int(port.read_text()))
        yield lambda: DriversWindow(driver)


# WebKit


class WebDriver(Driver):
    """WebDriver over HTTP."""

    def __init__(self, port: int, browser: Path) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        options = {"binary": str(browser), "args": ["--automation"]}
        capabilities = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        session = self._request("POST", "/session", {"capabilities": capabilities})
        self._session = f"/session/{session['sessionId']}"

    def answer(self, command: Command, parameters: dict[str, Any]) -> Any:
        _, method, path = command
        return self._request(method, f"{self._session}/{path.format(**parameters)}", parameters)

    def ends(self) -> None:
        self._request("DELETE", self._session, {})

    def _request(self, method: str, path: str, parameters: dict[str, Any]) -> Any:
        self._http.request(method, path, json.dumps(parameters) if method == "POST" else None)
        response = self._http.getresponse()
        value = json.load(response)["value"]
        assert response.status == 200, f"{path}: {value}"
        return value


@contextmanager
def webkits(_: Path) -> Iterator[NewWindow]:
    browser = next(Path("/usr").glob("lib*/**/webkit2gtk-4.*/MiniBrowser"))
    port = free_port()
    command = (str(other("WebKit")), f"--port={port}")
    with display() as name, started(*command, DISPLAY=name):
        await_start(lambda: is_open(port))
        driver = WebDriver(port, browser)
        yield lambda: DriversWindow(driver)
        driver.ends()


def is_open(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)):
        return True


@contextmanager
def display() -> Iterator[str]:
    """A display that nobody sees."""
    read, write = os.pipe()
    command = ("Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24")
    with started(*command, pass_fds=(write,)), os.fdopen(read) as number:
        os.close(write)
        yield f":{number.readline().strip()}"


# Processes


@contextmanager
def started(
    *command: str | Path, pass_fds: tuple[int, ...] = (), **environment: str
) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        pass_fds=pass_fds,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_start(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            if condition():
                return
        time.sleep(0.05)
    raise TimeoutError


ENGINES: dict[str, Callable[[Path], AbstractContextManager[NewWindow]]] = {
    "Chromium": lambda _: chromiums(),
    "Firefox": firefoxes,
    "WebKit": webkits,
}
