"""`python -m scripts.browser`: makes sure that the tests have a browser.

It takes an installed one, else downloads Playwright's, else installs Debian's. These two are
Chromium's headless shell, which draws no window and takes a fifth of Chromium's CPU time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

PLAYWRIGHTS = "Playwright's headless shell"
COMMANDS = (
    *("chromium-headless-shell", PLAYWRIGHTS),
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def launched(playwright: Playwright, *arguments: str) -> Browser | None:
    """The first browser that starts, with these arguments, or None."""
    for command in COMMANDS:
        path = shutil.which(command)
        if path or command == PLAYWRIGHTS:
            try:
                return playwright.chromium.launch(
                    executable_path=path, args=["--no-sandbox", *arguments]
                )
            except Error:
                continue  # it is broken, or not installed
    return None


def starts() -> bool:
    with sync_playwright() as playwright:
        return launched(playwright) is not None


def installers() -> Iterator[list[tuple[str, ...]]]:
    """The commands of each way to install a browser."""
    yield [(sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")]
    if shutil.which("apt-get") and os.geteuid() == 0:
        install = ("apt-get", "install", "--yes", "--no-install-recommends")
        packages = ("chromium-headless-shell", "fonts-noto-color-emoji")
        yield [("apt-get", "update"), (*install, *packages)]


def failure(*command: str) -> str:
    """Runs a command; returns its output if it failed, else an empty text."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout if done.returncode else ""


def main() -> int:
    if starts():
        return 0
    print(
        "Installing Chromium's headless shell for the tests of web pages: 300 MB, the first time "
        "only.",
        flush=True,
    )
    failures = []
    for commands in installers():
        failures += [failure(*command) for command in commands]
        if starts():
            return 0
    print(
        *(printed[-1_000:] for printed in failures),
        "The tests of web pages need Chrome or Chromium. Install one, on Debian with: "
        "apt-get install chromium-headless-shell",
        sep="\n",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
