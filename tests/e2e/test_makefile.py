"""What the Makefile's targets say where something is missing."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import install
from scripts.emulator import ROOT
from tests.e2e.conftest import Cloud, free_port


def make(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status of make, and what it prints besides that."""
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


def one_line(printed: str) -> str:
    (line,) = printed.strip().splitlines()
    return line


# Installing


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone whose targets need nothing but an environment."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").write_text("pip # which is there\n")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "REQUIREMENTS", tmp_path / "requirements")
    return tmp_path


def installed(capsys: pytest.CaptureFixture[str], monkeypatch: Any, *arguments: str) -> bool:
    """Runs the program, and says whether it found something to do."""
    monkeypatch.setattr(sys, "argv", ["install", *arguments])
    assert install.main() == 0
    return "Installed in" in capsys.readouterr().out


def test_an_environment_left_unfinished_is_made_anew(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert installed(capsys, monkeypatch, "run")
    subprocess.run([python, "-c", "import pip"], check=True)

    assert not installed(capsys, monkeypatch, "run")
    with install.locked(fcntl.LOCK_SH):  # another looks at the same time
        assert install.main() == 0
    assert capsys.readouterr().out == ""
    (clone / "requirements" / "run.txt").write_text("pip # which is there still\n")
    assert installed(capsys, monkeypatch, "run")
    assert not installed(capsys, monkeypatch, "--by-this-python", "run")

    configuration = clone / ".venv" / "pyvenv.cfg"
    configuration.write_text("version = 3.9.1\n")
    assert not installed(capsys, monkeypatch, "run")
    assert installed(capsys, monkeypatch, "--by-this-python", "run")
    assert "version = 3.9.1\n" not in configuration.read_text()
