"""`python -m scripts.browser`: installs a browser for the tests, unless one is there.

It installs Chromium's headless shell, which draws no window and takes a fifth of Chromium's CPU
time: Playwright's or, where that fails, Debian's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

COMMANDS = ("chromium-headless-shell", "google-chrome", "chromium")
IS_ROOT_ON_DEBIAN = shutil.which("apt-get") is not None and os.geteuid() == 0
PLAYWRIGHTS = f"{shlex.quote(sys.executable)} -m playwright install --only-shell chromium"
DEBIANS = (
    "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes "
    "--no-install-recommends chromium-headless-shell fonts-noto-color-emoji"
)


def installed() -> str | None:
    """The path of the system's browser; None if there is none, so that Playwright uses its own."""
    return next(filter(None, map(shutil.which, COMMANDS)), None)


def main() -> int:
    if installed():
        return 0
    libraries = " --with-deps" if IS_ROOT_ON_DEBIAN else ""
    debians = DEBIANS if IS_ROOT_ON_DEBIAN else "false"
    if subprocess.call(f"{PLAYWRIGHTS}{libraries} || {{ {debians}; }}", shell=True) == 0:
        return 0
    print(
        "The tests of web pages need Chrome or Chromium. Install one, on Debian with: "
        "apt-get install chromium-headless-shell",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
