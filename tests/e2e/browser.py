"""A Chromium without a window, for tests of web pages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from scripts.browser import installed


@cache
def executable() -> str:
    """The browser's path. Finding it takes a second."""
    path = installed()
    assert path, "There is no Chrome or Chromium; `make test` installs one."
    return path


@contextmanager
def browser(url: str, profile: Path, **addresses: str) -> Iterator[None]:
    """Shows a page. `addresses` are names that resolve to other addresses than on this machine."""
    rules = ", ".join(f"MAP {name.replace('_', '.')} {ip}" for name, ip in addresses.items())
    process = subprocess.Popen(
        [
            executable(),
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
