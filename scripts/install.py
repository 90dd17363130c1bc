"""`python -m scripts.install run emulator`: installs these, where they are not installed yet.

What running needs, and tests and checks on top of it, are layers of one environment; tools that pin
another boto3 have one each. Several are installed at the same time, but by one `make` at a time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHON = getattr(sys, "_base_executable", sys.executable)  # not that of an active environment


class Layer(NamedTuple):
    environment: str
    content: str
    megabytes: int  # on Linux
    includes: tuple[str, ...] = ()


LAYERS = {
    "run": Layer(".venv", "Chalice and the AWS CLI", 210),
    "dev": Layer(".venv", "what runs, tests and checks the chat", 710, ("run",)),
    "emulator": Layer(".venv-emulator", "the AWS emulator", 85),
    "scan": Layer(".venv-scan", "the security scanner", 220),
}


class Installation:
    """One layer, installed in the background; `output` is what pip and venv printed."""

    def __init__(self, name: str, *, by_this_python: bool, lock: int) -> None:
        self.layer = LAYERS[name]
        self.output: list[str] = []
        self.failed = False
        self._names = (name, *self.layer.includes)
        self._requirements = REQUIREMENTS / f"{name}.txt"
        self._directory = ROOT / self.layer.environment
        self._python = self._directory / "bin" / "python"
        self._by_this_python = by_this_python
        self._lock = lock
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._install)

    def is_done(self) -> bool:
        name = self._names[0]
        stamp = self._stamp(name)
        return self._is_usable() and stamp.exists() and stamp.read_text() == checksum(name)

    def start(self) -> None:
        self._thread.start()

    def is_under_way(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def progress(self) -> float:
        """From 0 to about 1: each package is downloaded first, and installed later."""
        pins = len(re.findall(r"^[\w.-]+==", self._requirements.read_text(), re.MULTILINE))
        downloaded = sum(line.startswith("Collecting ") for line in self.output)
        installed = len(list(self._directory.glob("lib/python*/site-packages/*.dist-info")))
        return (downloaded + installed) / (2 * max(pins, 1))

    def _install(self) -> None:
        try:
            if not self._is_usable():
                self._run(PYTHON, "-m", "venv", "--clear", self._directory)
            pip = (self._python, "-m", "pip", "--disable-pip-version-check", "--no-input")
            options = ("--progress-bar", "off", "--no-compile", "--requirement")
            self._run(*pip, "install", *options, self._requirements)
            for name in self._names:
                self._stamp(name).write_text(checksum(name))
        except (OSError, subprocess.CalledProcessError) as error:
            self.output.append(f"{error}\n")
            self.failed = True

    def _run(self, *command: str | Path) -> None:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[self._lock],  # if this is killed, the next `make` waits for pip to end
        ) as self._process:
            assert self._process.stdout is not None
            self.output.extend(self._process.stdout)
        if self._process.returncode:
            raise subprocess.CalledProcessError(self._process.returncode, command)

    def _is_usable(self) -> bool:
        """Whether this was complete once, so that pip has no more to do than to change versions."""
        complete = any(self._directory.glob("installed-*")) and self._python.exists()
        return complete and not (self._by_this_python and self._has_other_python())

    def _has_other_python(self) -> bool:
        configuration = (self._directory / "pyvenv.cfg").read_text()
        return f"version = {platform.python_version()}\n" not in configuration

    def _stamp(self, name: str) -> Path:
        return self._directory / f"installed-{name}"


def checksum(name: str) -> str:
    return hashlib.sha256((REQUIREMENTS / f"{name}.txt").read_bytes()).hexdigest()


@contextmanager
def locked(kind: int) -> Iterator[int]:
    """Waits until no other `make` of this clone installs; yields the lock's descriptor.

    With LOCK_SH, others may look at the same time; with LOCK_EX, nobody does anything here.
    """
    lock = os.open(REQUIREMENTS, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make is installing here; waiting for it ...", flush=True)
            fcntl.flock(lock, kind)
        yield lock
    finally:
        os.close(lock)


def install(installations: Sequence[Installation]) -> bool:
    """Installs, with the progress visible; says whether all went well."""
    layers = [each.layer for each in installations]
    print(
        f"Installing {' and '.join(layer.content for layer in layers)} into "
        f"{' and '.join(layer.environment for layer in layers)}: "
        f"{sum(layer.megabytes for layer in layers)} MB, the first time only.",
        flush=True,
    )
    started = time.monotonic()
    try:
        for each in installations:
            each.start()
        show_progress(installations, started)
    finally:
        for each in installations:
            each.stop()
    for each in installations:
        if each.failed:
            print("".join(each.output[-20:]), file=sys.stderr)
    if any(each.failed for each in installations):
        print("Installing failed, see above; with a way to PyPI, try again.", file=sys.stderr)
        return False
    print(f"Installed in {time.monotonic() - started:.0f} s.", flush=True)
    return True


def show_progress(installations: Sequence[Installation], started: float) -> None:
    """Until all have ended: in place on a terminal, every 10 s elsewhere."""
    is_terminal = sys.stdout.isatty()
    shown = 0.0
    while any(each.is_under_way() for each in installations):
        time.sleep(0.1)
        seconds = time.monotonic() - started
        if seconds - shown > (0.2 if is_terminal else 10):
            shown = seconds
            done = sum(each.progress() for each in installations) / len(installations)
            before, after = ("\r", "  ") if is_terminal else ("", "\n")
            print(f"{before}  {done:.0%} after {seconds:.0f} s", end=after, flush=True)
    if is_terminal:
        print("\r\033[K", end="")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by-this-python", action="store_true", help="reinstall for this Python")
    parser.add_argument("layers", nargs="+", choices=LAYERS)
    arguments = parser.parse_args()
    if not (find_spec("ensurepip") and find_spec("venv")):
        print(
            f"{PYTHON} has no venv module; install it, on Debian and Ubuntu with: "
            "apt install python3-venv",
            file=sys.stderr,
        )
        return 1

    def missing(lock: int) -> list[Installation]:
        installations = [
            Installation(name, by_this_python=arguments.by_this_python, lock=lock)
            for name in arguments.layers
        ]
        return [each for each in installations if not each.is_done()]

    with locked(fcntl.LOCK_SH) as lock:
        if not missing(lock):
            return 0
    with locked(fcntl.LOCK_EX) as lock:
        try:
            return 0 if not (left := missing(lock)) or install(left) else 1
        except KeyboardInterrupt:
            print("\nInterrupted; the next make begins anew.", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
