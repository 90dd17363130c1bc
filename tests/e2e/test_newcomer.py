"""A fresh clone, in a directory with an odd name, and its first screen."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from emulator.emulator import ROOT
from tests.e2e.actors import Terminal
from tests.e2e.conftest import eventually, free_port
from tests.e2e.test_make_run import GOODBYE, is_listening, script

NOT_CLONED = shutil.ignore_patterns(
    *(".git", ".venv*", ".local", "out", ".*_cache", ".hypothesis", "__pycache__", "tests")
)


def test_a_fresh_clone_runs_is_chatted_with_and_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It installs its own tools, and uses nothing from this clone."""
    clone = tmp_path / "it's a q\"uöte in $HOME"
    shutil.copytree(ROOT, clone, ignore=NOT_CLONED)
    port = free_port()
    monkeypatch.setenv("PORT", str(port))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with script("run", port, command=["make", "run"], cwd=clone) as run:
        run.prints(r"Installing the AWS emulator into \.venv-emulator: ")
        command = shlex.split(run.prints(r".+ ws://\S+\n"))
        said = sum(map(int, re.findall(r": (\d+) MB\.\n", run.printed)))
        assert 0.8 * said < megabytes(clone / ".venv", clone / ".venv-emulator") < 1.2 * said
        assert not list(clone.glob(".venv/lib/python*/site-packages/pytest"))

        with (
            Terminal(*command, cwd=clone) as john,
            Terminal("make", "chat", cwd=clone) as jenny,
        ):
            john.types("John")
            eventually(lambda: "< Using nickname: John" in john.screen)
            jenny.types("Jenny")
            eventually(lambda: "< Using nickname: Jenny" in jenny.screen)
            (link,) = clone.glob(".venv/lib/python*/site-packages/awscli/botocore/data/cli.json")
            link.unlink()  # as in a clone whose environment is older
            smoked = subprocess.run(["make", "smoke"], cwd=clone, stdout=subprocess.PIPE, text=True)
            assert len(re.findall("^ok ", smoked.stdout, re.MULTILINE)) == 4, smoked.stdout

            (exports,) = run.prints(r"(?<=on the emulator: )\. .*\n").splitlines()
            listed = subprocess.run(
                ["sh", "-e", "-c", f". .venv/bin/activate\n{exports}\naws s3 ls"],
                cwd=clone,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert "chalice-chat-local" in listed.stdout

            run.gets(signal.SIGINT)
            run.ends()
            assert "\nStopped.\n" in run.printed
            eventually(lambda: jenny.screen.endswith(GOODBYE))
            assert jenny.ends() == 0
    assert not is_listening(port)
    eventually(lambda: not (clone / ".local" / str(port)).exists())


def megabytes(*directories: Path) -> float:
    """Their size on disk."""
    blocks = (file.lstat().st_blocks for each in directories for file in each.rglob("*"))
    return sum(blocks) * 512 / 2**20
