"""The messages of the Makefile's targets, and the installing of their tools."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import scripts.install
from emulator.emulator import HOST, ROOT
from emulator.processes import lock
from scripts.install import is_usable
from tests.e2e.actors import PATIENCE
from tests.e2e.conftest import Cloud, free_port
from tests.e2e.test_make_run import one_line, script


def make(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status of make, and its output without the line about that."""
    variables = dict(os.environ) | environment
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # it is not part of `make test`
        variables.pop(name, None)
    made = subprocess.run(
        ["make", "--silent", *arguments],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = made.stdout.strip().splitlines()
    return made.returncode, "\n".join(line for line in lines if not line.startswith("make: ***"))


@pytest.mark.parametrize(
    ("place", "script", "said"),
    [
        ("shims", "exit 127", "is a shim of pyenv, with no Python behind it"),
        ("bin", "exit 1", "is too old"),
        ("bin", "exit 126", "does not start"),
        ("bin", None, "is not there"),
    ],
)
def test_a_python_that_will_not_do(
    tmp_path: Path, place: str, script: str | None, said: str
) -> None:
    python = tmp_path / place / "python3.14"
    if script is not None:
        python.parent.mkdir()
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    status, printed = make("run", f"PYTHON={python}")
    assert status != 0
    assert printed.startswith(f"{python} {said}")
    assert "name it: make PYTHON=python3.12" in one_line(printed)


@pytest.mark.parametrize("target", ["chat", "url", "smoke", "load"])
def test_where_no_chat_runs_they_say_how_to_start_one(target: str) -> None:
    port = free_port()
    status, printed = make(target, PORT=str(port))
    assert status != 0
    assert one_line(printed).startswith(
        f"No chat runs here on port {port}: start it with `make run"
    )


def test_a_stack_that_is_not_there(cloud: Cloud) -> None:
    for target in ("chat", "url", "smoke", "logs"):
        status, printed = make(target, "STACK=Nope", **cloud.emulator.environment)
        assert status != 0
        assert one_line(printed).startswith("There is no stack Nope in us-east-1")
    status, printed = make("delete", "STACK=Nope", **cloud.emulator.environment)
    assert status != 0
    assert "Nope does not exist" in one_line(printed)


def test_without_a_region_it_is_packaged_and_asked_for_when_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    subprocess.run(
        [sys.executable, "-m", "scripts.package", str(tmp_path / "out")], cwd=ROOT, check=True
    )
    assert (tmp_path / "out" / "sam.json").exists()
    status, printed = make("url", "STACK=ChaliceChat")
    assert status != 0
    assert one_line(printed).startswith("Which region?")


# Installing


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of a clone in which `install.py` has installed one tiny package, and its output."""
    directory = tmp_path_factory.mktemp("clones")
    clone = directory / "a clone"
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    (clone / "requirements").mkdir()
    wheel = directory / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        script = zipfile.ZipInfo("tiny-1.data/scripts/tiny")
        script.external_attr = 0o100755 << 16
        files.writestr(script, "#!python\nprint('works')\n")
        files.writestr(
            "tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n"
        )
        files.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        files.writestr("tiny-1.dist-info/RECORD", "")
    (clone / "requirements" / "run.txt").write_text(f"{wheel}\n")
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")  # a first try was interrupted
    python.chmod(0o755)
    printed = install(clone)
    return clone.rename(directory / "copy"), printed


@pytest.fixture
def clone(first: tuple[Path, str]) -> Iterator[Path]:
    """That clone, at its place. To make its environment takes five seconds."""
    copy, _ = first
    clone = copy.with_name("a clone")
    shutil.copytree(copy, clone, symlinks=True)
    yield clone
    shutil.rmtree(clone, ignore_errors=True)  # one test moves it


INSTALL = (sys.executable, "-m", "scripts.install")


def install(clone: Path, *options: str) -> str:
    """Installs, and returns the output: empty if everything was there."""
    installed = subprocess.run(
        [*INSTALL, *options, "run"],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert installed.returncode == 0, installed.stdout
    return installed.stdout


def test_what_is_missing_is_installed_and_no_more(clone: Path, first: tuple[Path, str]) -> None:
    _, printed = first
    assert printed.startswith("Installing Chalice and the AWS CLI into .venv: 225 MB.\n")
    assert "\nInstalled in " in printed
    assert subprocess.check_output([clone / ".venv" / "bin" / "tiny"]) == b"works\n"
    lookers_lock = lock(clone / "requirements", 0)
    assert lookers_lock is not None
    with script("install", 0, command=[*INSTALL, "run"], cwd=clone) as other:
        time.sleep(0.5)
        os.close(lookers_lock)
        assert other.ends() == 0
    assert other.printed == ""
    assert install(clone, "--by-this-python") == ""

    requirements = clone / "requirements" / "run.txt"
    requirements.write_text(requirements.read_text() + "# and no more\n")
    (kept := clone / ".venv" / "kept").touch()
    assert "\nInstalled in " in install(clone)
    assert install(clone) == ""
    assert kept.exists()


def test_an_environment_that_will_not_do_is_made_anew(clone: Path) -> None:
    environment = clone / ".venv"
    assert is_usable(environment, by_this_python=True)

    with changed(environment / "pyvenv.cfg", "version = .*", "version = 3.9.1"):
        assert is_usable(environment, by_this_python=False)
        assert not is_usable(environment, by_this_python=True)

    with changed(environment / "pip.log", "Successfully installed tiny-1", ""):  # interrupted
        assert not is_usable(environment, by_this_python=False)

    with changed(environment / "pip.log", "(?s)Installing collected.*", "No network"):
        assert is_usable(environment, by_this_python=True)

    link = clone.with_name("link")  # as in a worktree of Git that shares the environment
    link.symlink_to(environment)
    assert is_usable(link, by_this_python=True)

    moved = clone.rename(clone.with_name("moved")) / ".venv"
    assert not is_usable(moved, by_this_python=False)
    (moved / "left").touch()
    install(moved.parent)
    assert is_usable(moved, by_this_python=False)
    assert not (moved / "left").exists()


@contextmanager
def changed(file: Path, pattern: str, replacement: str) -> Iterator[None]:
    before = file.read_text()
    after = re.sub(pattern, replacement, before)
    assert after != before
    file.write_text(after)
    yield
    file.write_text(before)


def test_control_c_ends_pip_and_lets_a_make_that_waits_begin(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", HOST)
    requirements = clone / "requirements" / "run.txt"
    tiny = requirements.read_text()
    start = partial(script, "install", 0, command=[*INSTALL, "run"], cwd=clone)
    with socket.create_server((HOST, 0)) as silent_index:
        silent_index.settimeout(PATIENCE)
        url = f"http://{HOST}:{silent_index.getsockname()[1]}/"
        requirements.write_text(f"--index-url {url}\nnothing\n")
        with start() as first:
            pip, _ = silent_index.accept()
            pip.settimeout(PATIENCE)
            with pip, start() as second:
                second.prints("Another make is installing here; waiting for it ...\n")
                requirements.write_text(f"{tiny}# and no more\n")
                first.gets(signal.SIGINT)
                assert first.ends() != 0
                assert "Interrupted; the next make" in first.printed
                while pip.recv(1000):
                    pass  # until its connection ends, and it with it
                second.prints(r"\nInstalled in \d+ s\.\n")
                assert second.ends() == 0


def test_a_python_without_its_module_venv(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["install", "run"])
    monkeypatch.setattr(scripts.install, "find_spec", lambda name: None)
    assert scripts.install.main() != 0
    assert "apt install python3-venv" in one_line(capsys.readouterr().err)
