"""Plain `pytest` after the `pip install` of README.md, in an environment that has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from emulator.emulator import ROOT
from tests.conftest import NEEDS
from tests.e2e.test_readme import block

CORE = {f"test_{name}.py" for name in ("app", "commands", "handler", "mocked", "page", "sender")}


def test_five_packages_are_enough_for_the_chat_its_table_and_its_routes(tmp_path: Path) -> None:
    """The tests that need more are left out by name, and none is skipped."""
    clone = clone_to(tmp_path / "clone")
    python = install(tmp_path)
    variables = {name: value for name, value in os.environ.items() if "PY" not in name}
    ran = subprocess.run(
        [python, "-m", "pytest"], cwd=clone, env=variables, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr
    assert re.search(r"\n=+ \d+ passed in .*\n$", ran.stdout), ran.stdout[-1_000:]
    for module, tests in NEEDS.items():
        assert f"\nwithout {module}, left out: {', '.join(tests)}\n" in ran.stdout
    collected = set(re.findall(r"^tests/(\S+) \.", ran.stdout, re.MULTILINE))
    directory = clone / "tests"
    left_out = [directory / test for several in NEEDS.values() for test in several]
    assert collected == {
        str(file.relative_to(directory))
        for file in directory.rglob("test_*.py")
        if not any(file.is_relative_to(each) for each in left_out)
    }
    assert collected >= CORE


def clone_to(clone: Path) -> Path:
    """The files that Git has, and new ones, but nothing that was installed or built."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    return clone


def install(directory: Path) -> Path:
    """Install the packages in the versions that are pinned here; returns their Python.

    uv takes a tenth of pip's time.
    """
    pinned = re.findall(r"^(\w.*?) \\$", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)
    constraints = directory / "constraints.txt"
    constraints.write_text("\n".join(pinned))
    command = block(ROOT / "README.md", "pip install chalice").splitlines()[0]
    environment = directory / "venv"
    script = f"""
        . scripts/uv.sh
        $uv venv --quiet "$ENVIRONMENT"
        $uv {command} --quiet --python "$ENVIRONMENT" --constraint "$CONSTRAINTS"
    """
    variables = os.environ | {
        "PYTHON": sys.executable,
        "ENVIRONMENT": str(environment),
        "CONSTRAINTS": str(constraints),
    }
    subprocess.run(["sh", "-e", "-c", script], cwd=ROOT, env=variables, check=True)
    return environment / "bin" / "python"
