"""`python -m scripts.browser`: makes sure that the tests have a Chrome or Chromium.

It takes an installed one, else downloads Playwright's, else installs Debian's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import sync_playwright

COMMANDS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def installed() -> str | None:
    """The path of a browser that starts, or None."""
    with sync_playwright() as playwright:
        commands = (*COMMANDS, playwright.chromium.executable_path)
    for command in commands:
        if (path := shutil.which(command)) and not failure(path, "--version"):
            return path
    return None


def installers() -> Iterator[list[tuple[str, ...]]]:
    """The commands of each way to install a browser."""
    yield [(sys.executable, "-m", "playwright", "install", "chromium")]
    if shutil.which("apt-get") and os.geteuid() == 0:
        install = ("apt-get", "install", "--yes", "--no-install-recommends")
        yield [("apt-get", "update"), (*install, "chromium", "fonts-noto-color-emoji")]


def failure(*command: str) -> str:
    """Runs a command; returns its output if it failed, else an empty text."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout if done.returncode else ""


def main() -> int:
    if installed():
        return 0
    print(
        "Installing Chromium for the tests of web pages: 400 MB, the first time only.", flush=True
    )
    failures = []
    for commands in installers():
        failures += [failure(*command) for command in commands]
        if installed():
            return 0
    print(
        *(printed[-1_000:] for printed in failures),
        "The tests of web pages need Chrome or Chromium. Install one, on Debian with: "
        "apt-get install chromium",
        sep="\n",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
