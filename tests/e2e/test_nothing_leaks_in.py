"""Whatever somebody's shell has set for other ends, the chat on this machine works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

import scripts.load
import scripts.smoke
from emulator.emulator import BIN, EMULATOR_PYTHON, ROOT, STACK, Emulator, directory_of
from emulator.processes import locked
from scripts import Failure
from scripts.address import required
from scripts.run import how_to_use
from tests.e2e.conftest import delete, free_port
from tests.e2e.test_make_run import one_line, script
from tests.e2e.test_stack import copy_project

MISLEADING = {
    "AWS_PROFILE": "work",
    "AWS_DEFAULT_PROFILE": "work",
    "AWS_SESSION_TOKEN": "stale",
    "AWS_ACCESS_KEY_ID": "of nobody",
    "AWS_ENDPOINT_URL_CLOUDFORMATION": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_LOGS": "http://127.0.0.1:1",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_RETRY_MODE": "bogus",
    "AWS_MAX_ATTEMPTS": "many",
    "AWS_DEFAULTS_MODE": "bogus",
    "AWS_DATA_PATH": "/nowhere",
    "AWS_CA_BUNDLE": "/nowhere",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_CONFIG_FILE": "/nowhere",
    "AWS_REGION": "eu-north-1",
    "AWS_DEFAULT_REGION": "eu-north-1",
    "http_proxy": "http://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "PYTHONUNBUFFERED": "1",
}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """As `make run` starts it."""
    with Emulator(free_port()) as emulator:
        emulator.deploy()
        yield emulator


@pytest.fixture(autouse=True)
def shell(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of somebody who never touched AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PORT", str(emulator.port))
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


def ran(
    what: str, *arguments: str, lines: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{what}", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        input=lines,
        capture_output=True,
        text=True,
    )


def in_shell(commands: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def sourced(emulator: Emulator) -> str:
    """The command that prepares a shell."""
    return f". {shlex.quote(str(emulator.exports))}"


# Variables


def test_no_variable_misleads_a_command(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in MISLEADING.items():
        monkeypatch.setenv(name, value)
    printed = ran("address")
    assert printed.stdout == f"{emulator.page_url()}\n{emulator.url()}\n"
    assert printed.stderr == ""
    assert ran("people", "people").stdout == "Nobody is connected.\n"
    assert ran("chat", lines="John\n").stdout.startswith("Using nickname: John\n")
    assert f"\nDeployed: {emulator.url()}\n" in ran("run", "redeploy").stdout
    smoke, load = Mock(), Mock()
    monkeypatch.setattr(scripts.smoke, "smoke", smoke)
    monkeypatch.setattr(scripts.load, "load", load)
    monkeypatch.setattr(sys, "argv", ["smoke or load"])
    scripts.smoke.main()
    scripts.load.main()
    assert smoke.call_args.args[0] == load.call_args.args[0] == emulator.url()
    of_the_table = load.call_args.kwargs["emulator"]
    assert of_the_table.client("dynamodb").describe_table(TableName=STACK)


def test_nor_the_start_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in MISLEADING.items():
        monkeypatch.setenv(name, value)
    with script("run", free_port()) as run:
        run.prints(r"ws://\S+")


@pytest.mark.parametrize("variables", [{}, MISLEADING], ids=["none", "all"])
def test_the_file_for_shells_unsets_what_would_mislead(
    emulator: Emulator, variables: dict[str, str]
) -> None:
    ask = f"python -m scripts.address --stack {STACK}"
    printed = in_shell(f"set -u; {sourced(emulator)}; {ask}", **variables)
    assert printed.stdout == f"{emulator.page_url()}\n{emulator.url()}\n"
    assert printed.stderr == ""


def test_after_that_file_the_aws_cli_asks_the_emulator(emulator: Emulator) -> None:
    printed = in_shell(f"{sourced(emulator)}; aws s3 ls", **MISLEADING)
    assert "chalice-chat-local" in printed.stdout, printed.stderr


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_RETRY_MODE"])
def test_after_that_file_a_variable_misleads_no_command_here(emulator: Emulator, name: str) -> None:
    url = f"export {name}={MISLEADING[name]}; python -m scripts.address"
    printed = in_shell(f"{sourced(emulator)}; {url}; {url} --stack {STACK}")
    assert printed.stdout == 2 * f"{emulator.page_url()}\n{emulator.url()}\n"


def test_settings_for_aws_stay_the_callers() -> None:
    """`make url STACK=...` asks the account that the shell names."""
    failed = ran("address", "--stack", STACK, AWS_PROFILE="work")
    assert failed.stderr == "The config profile (work) could not be found\n"
    failed = ran("address", "--stack", STACK, AWS_DEFAULT_REGION="eu-north-1")
    assert failed.stderr.startswith("No credentials for AWS")


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_after_that_file_nothing_else_gets_a_proxy(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Programs read one of the two names, or both."""
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    shown = in_shell(f'{sourced(emulator)}; echo "$no_proxy $NO_PROXY"', **{name: ".work"})
    assert shown.stdout == ".work,127.0.0.1 .work,127.0.0.1\n"


def test_the_printed_line_passes_by_a_proxy(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    printed = how_to_use(emulator.url(), emulator.page_url(), emulator, None)
    (line,) = re.findall(r"^    (.*/wsdump .*)$", printed, re.MULTILINE)
    assert "Press Ctrl+C to quit" in in_shell(line).stdout
    monkeypatch.delenv("http_proxy")
    assert "no_proxy" not in how_to_use(emulator.url(), emulator.page_url(), emulator, None)


def test_a_pipe_that_closes_is_no_error(emulator: Emulator) -> None:
    first = in_shell("python -m scripts.address | head -1", PYTHONUNBUFFERED="1")
    assert (first.stdout, first.stderr) == (f"{emulator.page_url()}\n", "")


CHILD = """
import subprocess
from scripts.address import run
run(lambda: subprocess.call(["sh", "-c", "cat && echo done && echo done >&2"]))
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_may_be_closed(emulator: Emulator, closed: str) -> None:
    url = in_shell(f"python -m scripts.address {closed}")
    assert (url.returncode, url.stderr) == (0, "")
    assert url.stdout == (
        "" if ">&-" in closed.split() else f"{emulator.page_url()}\n{emulator.url()}\n"
    )
    chat = in_shell(f"echo John | python -m scripts.chat {closed.replace('<&-', '')}")
    assert (chat.returncode, chat.stderr) == (0, "")
    assert in_shell(f"python -m scripts.chat {closed}").returncode == 0
    child = in_shell(f"python -c {shlex.quote(CHILD)} {closed}")
    assert child.returncode == 0


@pytest.mark.parametrize("command", ["address", "chat", "run redeploy"])
def test_a_full_disk_is_reported_once_and_at_once(tmp_path: Path, command: str) -> None:
    """A limit on files' sizes stands for it."""
    file = shlex.quote(str(tmp_path / "file"))
    full = f"ulimit -f 0; python -m scripts.{command} >{file}"
    failed = in_shell(f"yes John | head -20 | ({full})", PYTHONDONTWRITEBYTECODE="1")
    assert failed.returncode == 1
    assert failed.stderr == "The output cannot be written: File too large\n"


ADDRESS = "must be the address of a chat, as in URL=wss://"
ABOVE_0 = "must be a whole number above 0"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("chat", "--url", "abc"), ADDRESS),
        (("smoke", "--url", "http://127.0.0.1/"), ADDRESS),
        (("load", "--url", "ws://"), ADDRESS),
        *((("load", "--url", f"ws://{text}"), ADDRESS) for text in ("[", "h:x", "h:99999", "a..b")),
        (("chat", "--url", "WSS://h"), ADDRESS),
        *(
            (("logs", "--minutes", text), ABOVE_0)
            for text in ("inf", "nan", "-5", "1e9", "9" * 320)
        ),
        *((("load", "--people", text), ABOVE_0) for text in ("0", "-1", "\u0661")),
        (("load", "--rooms", "0"), ABOVE_0),
        (("load", "--bogus"), "unrecognized arguments: --bogus"),
        (("deploy", "--stack=Chat", "--bogus"), "unrecognized arguments: --bogus"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(command: tuple[str, ...], said: str) -> None:
    failed = ran(*command)
    assert failed.returncode != 0
    assert said in one_line(failed.stderr)


# Places


def test_a_copied_clone_does_not_claim_the_emulator(emulator: Emulator, tmp_path: Path) -> None:
    """As after `cp -r` of a clone whose chat runs."""
    copied = shutil.copytree(emulator.directory, tmp_path / "copied")
    shutil.copy(emulator.directory.with_name(f"{emulator.port}.lock"), tmp_path / "copied.lock")
    assert emulator.is_running()
    assert not Emulator(emulator.port, copied).is_running()


def test_it_ends_with_its_files() -> None:
    """`make clean` removes the files; without them, no command finds the emulator."""
    port = free_port()
    with script("run", port) as run:
        run.prints(r"ws://\S+")
        shutil.rmtree(directory_of(port), ignore_errors=True)
        assert run.ends() == 1
        assert run.printed.endswith("The emulator's files were removed; start it again.\n")


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    clone = new_clone(tmp_path / "clone")
    (clone / ".local").touch()
    with script("run", free_port(), clone / ".venv" / "bin" / "python", cwd=clone) as run:
        assert run.ends() == 1
        assert repr(str(clone / ".local"))[1:-1] in one_line(run.printed)


def new_clone(directory: Path) -> Path:
    clone = copy_project(directory)
    for folder in ("emulator", "scripts"):
        shutil.copytree(ROOT / folder, clone / folder)
    for environment in (BIN.parent, EMULATOR_PYTHON.parent.parent):
        (clone / environment.name).symlink_to(environment)
    return clone


# Without a region, and without a stack


def test_without_a_region_a_stack_is_on_the_emulator_that_runs_here(emulator: Emulator) -> None:
    assert ran("address", "--stack", STACK).stdout.endswith(f"{emulator.url()}\n")
    assert ran("chat", "--stack", STACK, lines="John\n").stdout.startswith("Using nickname: John\n")
    assert '"message":"done"' in ran("logs", "--stack", STACK).stdout
    there_is_none = ran("chat", "--stack", "Second").stderr
    assert there_is_none.startswith(
        f"There is no stack Second in us-east-1 of the emulator on port {emulator.port}: "
    )
    nothing_runs = ran("logs", "--stack", STACK, PORT=str(free_port())).stderr
    assert nothing_runs.startswith("Which region?")


def test_a_chat_that_was_deleted_is_not_about_to_come(emulator: Emulator) -> None:
    delete(emulator)
    for command in ("chat", "address", "smoke", "load"):
        assert ran(command).stderr == (
            f"The chat on port {emulator.port} was deleted, or never deployed; "
            f"`make redeploy PORT={emulator.port}` deploys it.\n"
        )
    with script("run", emulator.port) as another:  # says that one runs already
        assert another.ends() == 1
    with locked(emulator.directory):  # as a deployment does
        assert ran("chat").stderr == (
            f"The chat on port {emulator.port} is not deployed yet; retry in a moment.\n"
        )
    with pytest.raises(Failure, match=r"is REVIEW_IN_PROGRESS, .* retry once it is deployed"):
        required("WebsocketAPIId", {"StackStatus": "REVIEW_IN_PROGRESS"})
