"""The commands of the READMEs, as they are printed there, on the emulator."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.emulator import BIN, ROOT, endpoint_of
from tests.e2e.actors import Person, company
from tests.e2e.conftest import Cloud, eventually
from tests.e2e.test_stack import copy_project

Shell = Callable[..., str]

# Variables that a reader sets; the rest of the environment only hides a real account.
SET_BY_READER = {
    *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
}
ADDRESS = re.compile(r"wss://(\w+)\.execute-api\.us-east-1\.amazonaws\.com/api/?")


@pytest.fixture
def shell(account: Cloud) -> Shell:
    """Runs commands in a directory, and returns what they print."""
    environment = {
        name: value
        for name, value in account.emulator.environment.items()
        if name not in SET_BY_READER
    }
    environment["PATH"] = f"{BIN}:{environment['PATH']}"

    def shell(directory: Path, *commands: str) -> str:
        files = shlex.quote(str(account.emulator.directory))
        script = re.sub(r"\S*\.local/4566", lambda _: files, "\n".join(commands))
        ran = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return shell


def block(page: Path, beginning: str) -> str:
    """The one code block of a page that begins like this."""
    blocks: list[str] = re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (each for each in blocks if each.startswith(beginning))
    return found


def address(cloud: Cloud, api_id: str) -> str:
    """Of an API of the emulator."""
    return f"ws://{endpoint_of(cloud.emulator.port, api_id)}"


def matches(expected: str, printed: str) -> bool:
    """Whether the output is as expected, with some value for each {...}."""
    return bool(re.fullmatch(re.sub(r"\\{\w+\\}", r"[\\w-]+", re.escape(expected)), printed))


def test_the_chat_is_deployed_twice_by_the_commands_of_its_readme(
    account: Cloud, shell: Shell, tmp_path: Path
) -> None:
    project = copy_project(tmp_path / "project")
    (project / ".venv").symlink_to(BIN.parent)
    readme = ROOT / "README.md"
    prepare = block(readme, ". .venv/bin/activate")
    first = block(readme, "chalice package")
    second = block(ROOT / "docs" / "operating.md", "aws cloudformation deploy --template-file out/")
    ask, _wsdump = block(readme, "aws cloudformation describe-stacks").splitlines()
    ask_second = ask.replace("ChaliceChat", "Second")
    ids = ADDRESS.findall(shell(project, prepare, first, second, ask, ask_second))
    assert len(set(ids)) == 2
    for api_id in ids:
        with company(address(account, api_id)) as connect:
            john, jenny = connect(), connect()
            for person, name in ((john, "John"), (jenny, "Jenny")):
                person.says(name)
                person.hears(f"Using nickname: {name}\nType /help for list of commands.")
                person.says("/join chalice")
                person.hears('Joined chat room "chalice"')
            john.hears("Jenny joined room.")
            jenny.says("Hi")
            for person in (john, jenny):
                person.hears("Jenny: Hi")


def test_the_echo_server_is_deployed_echoes_and_is_deleted_by_the_commands_of_its_readme(
    account: Cloud, shell: Shell, tmp_path: Path
) -> None:
    project = tmp_path / "echo-server"
    built = shutil.ignore_patterns("deployments", "deployed", "__pycache__")
    shutil.copytree(ROOT / "examples" / "echo-server", project, ignore=built)
    readme = project / "README.md"
    prepare = block(readme, ". ../../.local")

    deployed = shell(project, prepare, block(readme, "chalice deploy"))
    assert matches(block(readme, "Creating deployment package."), deployed), deployed

    (api_id,) = ADDRESS.findall(deployed)
    with Person(address(account, api_id)) as person:
        for text in ("foo", "bar", "foo bar baz", '{"action": "$connect"}', "\u202e\x00"):
            person.says(text)
            person.hears(text)

    logs = block(readme, "chalice logs")
    eventually(lambda: "REPORT" in shell(project, prepare, logs))
    assert "ERROR" not in shell(project, prepare, logs)

    deleted = shell(project, prepare, block(readme, "chalice delete"))
    assert matches(block(readme, "Deleting"), deleted), deleted
    assert "echo-server" not in str(account.client("lambda").list_functions()["Functions"])
    assert "echo-server" not in str(account.client("apigatewayv2").get_apis()["Items"])
    assert "echo-server" not in str(account.client("iam").list_roles()["Roles"])
