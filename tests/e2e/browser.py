"""A Chromium without a window, for tests of web pages."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMANDS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def installed_browser() -> str:
    for command in COMMANDS:
        if found := shutil.which(command):
            return found
    raise AssertionError(
        "The tests of web pages need Chromium or Chrome: on Debian, `apt-get install chromium`."
    )


@contextmanager
def browser(url: str, profile: Path, **addresses: str) -> Iterator[None]:
    """Shows a page. `addresses` are names that resolve to other addresses than on this machine."""
    rules = ", ".join(f"MAP {name.replace('_', '.')} {ip}" for name, ip in addresses.items())
    process = subprocess.Popen(
        [
            installed_browser(),
            *("--headless", "--disable-gpu", "--no-sandbox", "--no-first-run"),
            *(f"--user-data-dir={profile}", f"--host-resolver-rules={rules}"),
            url,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()
