"""`make run` and `make redeploy`, as someone at a terminal uses them."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from emulator.emulator import HOST, ROOT, Emulator, directory_of
from scripts import Failure
from scripts.package import KEPT, package
from scripts.run import redeploy
from tests.e2e.actors import PATIENCE, Person, Terminal, as_from_a_terminal
from tests.e2e.conftest import eventually, free_port
from tests.e2e.test_stack import copy_project


class Script:
    """`make run` or `make redeploy`, by default without make, and its output."""

    def __init__(
        self,
        what: str,
        port: int | str,
        python: str | Path = sys.executable,
        *,
        command: Sequence[str] = (),
        cwd: Path = ROOT,
        stdin: int | None = None,
    ) -> None:
        self.printed = ""
        self._process = subprocess.Popen(
            command or [str(python), "-m", "scripts.run", what],
            cwd=cwd,
            env=os.environ | {"PORT": str(port), "AWS_PROFILE": "real", "AWS_REGION": "eu-north-1"},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=as_from_a_terminal,
            process_group=0,
        )

    def prints(self, pattern: str) -> str:
        """Wait for output that matches, and return the match."""
        assert self._process.stdout is not None
        while not (found := re.search(pattern, self.printed)):
            more = os.read(self._process.stdout.fileno(), 4096)
            assert more, self.printed
            self.printed += more.decode()
        return found.group()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def gets(self, number: signal.Signals) -> None:
        """As from a terminal: with make, if that has started it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def is_killed_alone(self) -> None:
        self._process.kill()

    def ends(self) -> int:
        """Wait until it ends, and return its exit status."""
        rest, _ = self._process.communicate(timeout=PATIENCE)
        self.printed += rest.decode()
        return self._process.returncode


@contextmanager
def script(*arguments: Any, **options: Any) -> Iterator[Script]:
    started = Script(*arguments, **options)
    try:
        yield started
    finally:
        started.gets(signal.SIGTERM)
        started.ends()


def test_it_prints_how_to_connect_shows_logs_and_stops_on_control_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setenv("PORT", str(port))
    with script("run", port) as run:
        page = run.prints(r"(?<=\n\nOpen )http://\S+(?= in two tabs\.\n)")
        command = run.prints(r"\S+/wsdump ws://\S+")
        assert f"\n    make chat PORT={port}\n" in run.printed
        url = command.split()[1]
        assert (ROOT / command.split()[0]).exists()
        addresses = subprocess.run(
            [sys.executable, "-m", "scripts.address"], capture_output=True, text=True, check=True
        )
        assert addresses.stdout == f"{page}\n{url}\n"
        with Person(url) as john:
            john.says("John")
            john.hears("Using nickname: John\nType /help for list of commands.")
            run.prints(r"ChaliceChat-WebsocketMessage\S*: ")

            with script("redeploy", port) as redeploy:
                redeploy.prints(f"Deployed: {url}")
                assert redeploy.ends() == 0
            john.says("/nick")
            john.hears("Current nickname: John")

            with script("run", port) as second:
                assert second.ends() == 1
                assert one_line(second.printed) == (
                    f"This clone's chat runs on port {port} already: `make chat PORT={port}` "
                    f"connects, `make redeploy PORT={port}` deploys a change, and "
                    f"`make run PORT={port + 1}` starts another."
                )

            with Terminal(sys.executable, "-m", "scripts.chat") as jenny:
                jenny.types("Jenny")
                eventually(lambda: "< Using nickname: Jenny" in jenny.screen)
                run.gets(signal.SIGINT)
                assert run.ends() == 0
                john.is_disconnected()
                eventually(lambda: jenny.screen.endswith(GOODBYE))
                assert jenny.ends() == 0
    nothing_is_left(port)


GOODBYE = "Disconnected by the server: the emulator was stopped (code 1001)\n"


def test_of_two_at_the_same_instant_one_runs_and_the_other_says_so() -> None:
    port = free_port()
    with script("run", port) as one, script("run", port) as other:
        eventually(lambda: one.has_ended() or other.has_ended())
        first, second = (other, one) if one.has_ended() else (one, other)
        assert second.ends() == 1
        assert one_line(second.printed).startswith(
            (
                f"Another `make run` is at work on port {port}",
                f"Port {port} cannot be used",
                f"This clone's chat runs on port {port} already",
            )
        )
        url = first.prints(r"ws://\S+")
        with script("redeploy", port) as redeploy, script("redeploy", port) as again:
            for each in (redeploy, again):
                each.prints(f"Deployed: {url}")
        with Person(url) as john:
            john.says("John")
            john.hears("Using nickname: John\nType /help for list of commands.")
    nothing_is_left(port)


def test_one_started_as_another_is_killed_keeps_its_files() -> None:
    port = free_port()
    with script("run", port) as killed:
        killed.prints("Packaging the app")
        killed.gets(signal.SIGKILL)
        killed.ends()
    eventually(lambda: not is_listening(port))
    with script("run", port) as run:
        url = run.prints(r"ws://\S+")
        time.sleep(3)  # longer than the clearing up after the killed one lasts
        assert directory_of(port).exists()
        Person(url).leaves()
    nothing_is_left(port)


def test_a_change_of_the_code_does_not_install_the_requirements_again(tmp_path: Path) -> None:
    copy = copy_project(tmp_path / "project")
    first = packaged(copy)
    assert {"boto3/__init__.py", "chalicelib/__init__.py"} <= set(first.namelist())
    (copy / "chalicelib" / "new.py").write_text("NEW = 1")
    app = (copy / "app.py").read_bytes() + b"# new"
    (copy / "app.py").write_bytes(app)
    (kept,) = (copy / KEPT).glob("libraries-*")
    before = kept.stat()
    second = packaged(copy)
    assert kept.stat() == before
    assert second.read("app.py") == app
    assert second.read("chalicelib/new.py") == b"NEW = 1"
    assert set(first.namelist()) < set(second.namelist())


def packaged(project: Path) -> zipfile.ZipFile:
    emulator = Emulator(free_port(), project / "emulator")
    package(project, project / "out", emulator.run)
    return zipfile.ZipFile(io.BytesIO((project / "out" / "deployment.zip").read_bytes()))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_ending_it_halfway_leaves_nothing(ending: signal.Signals) -> None:
    port = free_port()
    with script("run", port) as run:
        run.prints("Packaging the app")
        eventually(lambda: is_listening(port))
        run.gets(ending)
        assert run.ends() == (-signal.SIGKILL if ending == signal.SIGKILL else 0)
    nothing_is_left(port)


def test_a_closed_terminal_ends_it_even_without_a_signal() -> None:
    port = free_port()
    screen, terminal = pty.openpty()
    with script("run", port, stdin=terminal) as run:
        os.close(terminal)
        run.prints("Ctrl-C stops everything")
        os.close(screen)
        assert run.ends() == 0
    nothing_is_left(port)


def test_it_ends_when_make_is_killed() -> None:
    port = free_port()
    with script("run", port, command=["make", "--silent", "run"]) as run:
        run.prints("Ctrl-C stops everything")
        run.is_killed_alone()
        run.ends()
    nothing_is_left(port)


STUBBORN = """#!/bin/sh
# In place of the AWS CLI: runs until the emulator's files are gone, then writes to them.
trap '' INT TERM HUP
echo > "${TMPDIR:-/tmp}/temporary"
for out; do :; done
while [ -e "$(dirname "$out")" ]; do sleep 0.01; done
mkdir -p "$out"
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_running_command_does_not_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    temporary = tmp_path / "temporary files"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (tmp_path / "python").symlink_to(sys.executable)  # which finds no environment
    monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))
    aws = tmp_path / "aws"
    aws.write_text(STUBBORN)
    aws.chmod(0o755)
    port = free_port()
    with script("run", port, tmp_path / "python") as run:
        run.prints("Uploading it")
        eventually(lambda: any(str(aws) in line for line in processes_of(port)))
        run.gets(ending)
        run.ends()
    nothing_is_left(port)
    assert list(temporary.iterdir()) == []


INTERRUPTED = """
import runpy, signal, subprocess

class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        signal.raise_signal(signal.SIGINT)

subprocess.Popen = Interrupted
runpy.run_module("scripts.run", run_name="__main__")
"""

CARELESS = """
import runpy, signal, boto3

create = boto3.Session.client

def careless(*arguments, **options):
    try:
        signal.raise_signal(signal.SIGTERM)
    except Exception:
        pass
    return create(*arguments, **options)

boto3.Session.client = careless
runpy.run_module("scripts.run", run_name="__main__")
"""

FINALIZED = """
import io, runpy, signal, boto3

create = boto3.Session.client

class File(io.RawIOBase):
    def close(self):
        if not self.closed:
            super().close()
            signal.raise_signal(signal.SIGTERM)

def careless(*arguments, **options):
    File()
    return create(*arguments, **options)

boto3.Session.client = careless
runpy.run_module("scripts.run", run_name="__main__")
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(INTERRUPTED, id="before it knows that the emulator has started"),
        pytest.param(CARELESS, id="where a library catches every exception, as boto3 does"),
        pytest.param(FINALIZED, id="where Python drops every exception, as a file is freed"),
    ],
)
def test_no_signal_is_lost(code: str) -> None:
    port = free_port()
    with script("run", port, command=[sys.executable, "-c", code, "run"]) as run:
        assert run.ends() == 0
        assert "Stopped." in run.printed
    nothing_is_left(port)


CLEANUP = """
import runpy, signal, time
from emulator.emulator import Emulator
from scripts import Failure

stop = Emulator._stop

def deploy(*arguments, **options):
    {ending}

def slow(*arguments):
    signal.raise_signal(signal.SIGTERM)
    time.sleep(1)
    stop(*arguments)
    print("Cleaned up.")

Emulator.deploy, Emulator._stop = deploy, slow
runpy.run_module("scripts.run", run_name="__main__")
"""


@pytest.mark.parametrize("ending", ["signal.raise_signal(signal.SIGINT)", "raise Failure('no')"])
def test_no_signal_disturbs_the_cleanup(ending: str) -> None:
    port = free_port()
    code = CLEANUP.format(ending=ending)
    with script("run", port, command=[sys.executable, "-c", code, "run"]) as run:
        run.ends()
        assert "Cleaned up." in run.printed
    nothing_is_left(port)


def test_a_redeployment_to_nothing_says_so_in_one_line() -> None:
    port = free_port()
    with script("redeploy", port) as redeploy:
        assert redeploy.ends() == 1
        assert one_line(redeploy.printed) == (
            f"Nothing to redeploy to: no emulator runs on port {port}; use `make run PORT={port}`."
        )


def test_a_redeployment_reports_that_the_chat_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    with Emulator(port) as emulator:
        emulator.wait_until_ready()
        monkeypatch.setattr("emulator.emulator.package", lambda *arguments: emulator.__exit__())
        with pytest.raises(Failure, match="was stopped during the deployment"):
            redeploy(port)


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "\u0664"])
def test_an_invalid_port_is_refused_in_one_line(port: str) -> None:
    with script("run", port) as run:
        assert run.ends() == 1
        assert one_line(run.printed).startswith("PORT is a number")


def one_line(printed: str) -> str:
    (line,) = printed.strip().splitlines()
    return line


def nothing_is_left(port: int) -> None:
    eventually(lambda: processes_of(port) == [])
    eventually(lambda: not directory_of(port).exists())
    assert not is_listening(port)


def processes_of(port: int) -> list[str]:
    """The processes whose command lines name the files of the emulator on a port."""
    command = ["ps", "-A", "-ww", "-o", "pid=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(directory_of(port)) in line]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
