"""`python -m scripts.install run emulator`: installs these layers where they are missing."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from emulator.processes import kill_group, lock

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHON = getattr(sys, "_base_executable", sys.executable)  # not that of an active environment
LOOKING_WITHIN = 1.0  # seconds; a make that installs nothing holds the lock for less

# Its arguments: the Python, the environment and the requirements.
INSTALL = """
test -e "$1/installed" || "$0" -m venv --clear "$1" || exit
"$1/bin/python" -m pip --disable-pip-version-check --no-input install --no-compile \
    --progress-bar off --requirement "$2" >"$1/pip.log" 2>&1 || { tail -n 20 "$1/pip.log" >&2; exit 1; }
"""


class Layer(NamedTuple):
    environment: str  # one for each version of boto3 that is pinned
    requirements: tuple[str, ...]  # the first file includes the others
    content: str
    megabytes: int  # of the whole environment, on Linux


LAYERS = {
    "run": Layer(".venv", ("run.txt",), "Chalice and the AWS CLI", 225),
    "dev": Layer(".venv", ("dev.txt", "run.txt"), "all that tests and checks need", 725),
    "emulator": Layer(".venv-emulator", ("emulator.txt",), "the AWS emulator", 90),
    "scan": Layer(".venv-scan", ("scan.txt",), "the security scanners", 220),
}


def is_usable(environment: Path, *, by_this_python: bool) -> bool:
    """Whether pip can add to it: the environment is complete, unmoved and of the right Python."""
    if not all((environment / name).exists() for name in ("installed", "pip.log", "bin/python")):
        return False
    printed = (environment / "pip.log").read_text(errors="replace")
    if "\nInstalling collected packages" in printed and "\nSuccessfully installed" not in printed:
        return False  # pip was interrupted, and would take half a package for a whole one
    origin = (environment / "pyvenv.cfg").read_text("utf-8")
    version = f"\nversion = {platform.python_version()}\n"
    return f" {environment.resolve()}\n" in origin and (version in origin or not by_this_python)


def is_installed(layer: Layer) -> bool:
    installed = ROOT / layer.environment / "installed"
    requirements = REQUIREMENTS / layer.requirements[0]
    return installed.exists() and requirements.read_text() in installed.read_text()


def install(layers: Sequence[Layer], turn: int) -> int:
    """Installs layers at the same time and shows pip's progress; returns the exit status."""
    what = ", and ".join(f"{layer.content} into {layer.environment}" for layer in layers)
    print(f"Installing {what}: {sum(layer.megabytes for layer in layers)} MB.", flush=True)
    started = shown = time.monotonic()
    installing: dict[Layer, subprocess.Popen[bytes]] = {}
    try:
        for layer in layers:
            requirements = REQUIREMENTS / layer.requirements[0]
            installing[layer] = subprocess.Popen(
                ["sh", "-c", INSTALL, PYTHON, ROOT / layer.environment, requirements],
                stdin=subprocess.DEVNULL,
                process_group=0,
                pass_fds=[turn],  # if this is killed, the next `make` waits for pip to end
            )
        while busy := [layer for layer, process in installing.items() if process.poll() is None]:
            time.sleep(0.1)
            if time.monotonic() > shown + 5:
                shown = time.monotonic()
                print(f"  {shown - started:.0f} s: {last_printed(busy[0])}", flush=True)
    except BaseException:
        for process in installing.values():
            kill_group(process.pid)
        raise
    for layer, process in installing.items():
        if process.returncode == 0:
            finish(layer)
    if any(process.returncode for process in installing.values()):
        print("Installing failed, see above; retry once PyPI can be reached.", file=sys.stderr)
        return 1
    print(f"Installed in {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def finish(layer: Layer) -> None:
    """Lets the layer's commands start in a path with a space, then records the layer."""
    environment = ROOT / layer.environment
    python = environment / "bin" / "python"
    started_by_kernel = f"#!{python}\n".encode()
    started_by_shell = (
        f'#!/bin/sh\n"exec" "{python}" "$0" "$@"\n'.encode()
    )  # a mere string to Python
    for command in environment.glob("bin/*"):
        if command.is_file() and (content := command.read_bytes()).startswith(started_by_kernel):
            command.write_bytes(content.replace(started_by_kernel, started_by_shell, 1))
    requirements = [(REQUIREMENTS / name).read_text() for name in layer.requirements]
    (environment / "installed").write_text("".join(requirements))


def last_printed(layer: Layer) -> str:
    log = ROOT / layer.environment / "pip.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    steps = [line for line in lines if line.startswith(("Collecting ", "Installing "))]
    return steps[-1][:80] if steps else f"making {layer.environment}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by-this-python", action="store_true", help="reinstall for this Python")
    parser.add_argument("layers", nargs="+", choices=LAYERS)
    arguments = parser.parse_args()
    if not (find_spec("ensurepip") and find_spec("venv")):
        hint = "install it, on Debian and Ubuntu with: apt install python3-venv"
        print(f"{PYTHON} has no venv module; {hint}", file=sys.stderr)
        return 1
    turn = lock(REQUIREMENTS, LOOKING_WITHIN)
    if turn is None:
        print("Another make is installing here; waiting for it ...", flush=True)
        turn = lock(REQUIREMENTS, float("inf"))
        assert turn is not None
    layers = [LAYERS[name] for name in arguments.layers]
    for environment in (ROOT / layer.environment for layer in layers):
        if not is_usable(environment, by_this_python=arguments.by_this_python):
            (environment / "installed").unlink(missing_ok=True)
    missing = [layer for layer in layers if not is_installed(layer)]
    return install(missing, turn) if missing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the next make installs the rest.")
