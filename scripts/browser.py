"""`python -m scripts.browser`: installs a browser for the tests, unless one is there.

It installs Chromium's headless shell, which draws no window and takes a fifth of Chromium's CPU
time: Playwright's or, where that fails, Debian's.

`python -m scripts.browser all` also installs Firefox and WebKit, as root on Debian. Elsewhere it
names those that are left out.
"""

import os
import shlex
import shutil
import subprocess
import sys

COMMANDS = ("chromium-headless-shell", "google-chrome", "chromium")
IS_ROOT_ON_DEBIAN = shutil.which("apt-get") is not None and os.geteuid() == 0
PLAYWRIGHTS = f"{shlex.quote(sys.executable)} -m playwright install --only-shell chromium"
DEBIANS = (
    "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends"
)
OTHERS = {"Firefox": "firefox-esr", "WebKit": "webkit2gtk-driver xvfb"}  # Debian's packages


def installed() -> str | None:
    """The path of the system's browser; None if there is none, so that Playwright uses its own."""
    return next(filter(None, map(shutil.which, COMMANDS)), None)


def other(engine: str) -> str | None:
    """The path of the system's Firefox, or of the driver of its WebKit; None if there is none."""
    if engine == "Firefox":
        return shutil.which("firefox-esr") or shutil.which("firefox")
    return shutil.which("Xvfb") and shutil.which("WebKitWebDriver")


def install_others() -> None:
    missing = [OTHERS[engine] for engine in OTHERS if not other(engine)]
    if missing and IS_ROOT_ON_DEBIAN:
        subprocess.call(f"{DEBIANS} {' '.join(missing)}", shell=True)
    if left_out := [engine for engine in OTHERS if not other(engine)]:
        packages = " ".join(OTHERS[engine] for engine in left_out)
        print(f"Left out: {' and '.join(left_out)}. On Debian: apt-get install {packages}")


def main() -> None:
    if sys.argv[1:] == ["all"]:
        install_others()
    if installed():
        return
    libraries = " --with-deps" if IS_ROOT_ON_DEBIAN else ""
    debians = f"{DEBIANS} {COMMANDS[0]} fonts-noto-color-emoji" if IS_ROOT_ON_DEBIAN else "false"
    if subprocess.call(f"{PLAYWRIGHTS}{libraries} || {{ {debians}; }}", shell=True) != 0:
        sys.exit(
            "The tests of web pages need Chrome or Chromium. Install one, on Debian with: "
            "apt-get install chromium-headless-shell"
        )


if __name__ == "__main__":
    main()
