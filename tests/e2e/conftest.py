"""One emulator and one deployment of the chat for all tests that do not change them.

Each worker of pytest-xdist has its own, and runs whole files.
"""

from __future__ import annotations

import inspect
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awscli
import boto3
import pytest
from awscli.clidriver import create_clidriver
from botocore.config import Config
from playwright.sync_api import Browser

from emulator.emulator import (
    HOST,
    REGION,
    ROOT,
    STACK,
    Emulator,
    aws_environment,
    directory_of,
    only,
)
from scripts import Failure
from tests.e2e.actors import PATIENCE, Person, company
from tests.e2e.small_chat import SmallChat, small_chat
from tests.e2e.tabs import OpenTab, Tab, chromium, tabs


@dataclass(frozen=True)
class Cloud:
    """The emulator, and the output of its functions."""

    emulator: Quick
    functions_output: Path

    def page_url(self, stack: str = STACK) -> str:
        """The address of a chat's page."""
        url = self.emulator.page_url(stack)
        assert url
        return url

    def client(self, service: str, url: str | None = None) -> Any:
        environment = self.emulator.environment
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=url or environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}),
        )


class Quick(Emulator):
    """Imports the AWS CLI only once, waits between deployments, and can delete stacks."""

    _deployed_at = 0  # Unix time, in whole seconds

    def run(
        self, command: Sequence[str], cwd: Path = ROOT, variables: Mapping[str, str] | None = None
    ) -> None:
        if command[0] != "aws":
            super().run(command, cwd, variables)
            return
        self.wait_until_ready()
        # Not where `scripts/install` links it, since this process has another botocore.
        # Relative, because a `$HOME` in the clone's path would be expanded.
        data = os.path.relpath(Path(awscli.__file__).with_name("data"))
        with only(self.environment | {"AWS_DATA_PATH": data}):
            status = create_clidriver().main(command[1:])
        if status != 0:
            raise Failure(f"`{' '.join(command)}` failed, see above.")

    def deploy_template(
        self, template: Path, *, stack: str = STACK, parameters: Sequence[str] = ()
    ) -> None:
        while int(time.time()) <= self._deployed_at:
            time.sleep(0.05)  # the AWS CLI names a change set after the current second
        try:
            super().deploy_template(template, stack=stack, parameters=parameters)
        finally:
            self._deployed_at = int(time.time())

    def delete(self, stack: str = STACK) -> None:
        delete(self, stack)


def delete(emulator: Emulator, stack: str = STACK) -> None:
    """Deletes a stack, and returns once nothing of it is left."""
    cloudformation = emulator.client("cloudformation")
    cloudformation.delete_stack(StackName=stack)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=stack, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )


OF_MAKE = ("MAKELEVEL", "MAKEFLAGS", "MFLAGS", "PYTHON", "SIGN_IN", "BUCKET", "STACK")

RESERVED: list[socket.socket] = []  # until the process ends
CLOUDS: list[Cloud] = []  # running


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files come first, so that the workers of pytest-xdist end at the same time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")
    items.sort(key=lambda item: ("e2e" not in item.keywords, "five" not in item.path.stem))


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fails after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            awaited = inspect.getsource(condition).strip()
            pytest.fail(
                "\n".join([f"not within {PATIENCE} s: {awaited}", *map(last_output, CLOUDS)])
            )
        time.sleep(0.05)


def last_output(cloud: Cloud) -> str:
    """The end of its functions' output and of the emulator's log."""
    logs = (cloud.functions_output, cloud.emulator.log)
    return "\n".join(f"--- {log}\n{log.read_text()[-4000:]}" for log in logs)


def free_port() -> int:
    """Below the ports that systems give to outgoing connections: one might take it meanwhile.

    No other test gets it, in any process: this process keeps the UDP port with the same number.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with (
            suppress(OSError),
            socket.socket() as probe,
            socket.socket(type=socket.SOCK_DGRAM) as reserved,
        ):
            probe.bind((HOST, port))
            reserved.bind((HOST, port))
            RESERVED.append(reserved.dup())
            return port


@pytest.fixture(scope="session", autouse=True)
def no_lock_files_left() -> Iterator[None]:
    yield
    for reserved in RESERVED:
        directory_of(reserved.getsockname()[1]).with_suffix(".lock").unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def outside_of_make(no_account: None) -> Iterator[None]:
    """A make that a test starts inherits none of `OF_MAKE` from `make test` or its caller."""
    with pytest.MonkeyPatch.context() as environment:
        for name in OF_MAKE:
            environment.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that does not answer, in place of the other tests' fixture, which sets up moto."""
    for name, value in aws_environment(1).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of nobody")


@contextmanager
def new_cloud(directory: Path) -> Iterator[Cloud]:
    """A new emulator, with nothing on it."""
    output = directory / "functions.txt"
    with output.open("w") as file:
        emulator = Quick(free_port(), directory / "emulator", functions_output=file)
        with emulator:
            emulator.wait_until_ready()
            cloud = Cloud(emulator, output)
            CLOUDS.append(cloud)
            try:
                yield cloud
            finally:
                CLOUDS.remove(cloud)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with new_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def chat_url(cloud: Cloud) -> str:
    """The address of the deployed chat."""
    return cloud.emulator.deploy()


@pytest.fixture
def empty_chat(cloud: Cloud, chat_url: str) -> Iterator[str]:
    """The address of the chat, which is empty before the test and must be empty after it."""
    yield chat_url
    table = cloud.client("dynamodb")
    eventually(lambda: table.scan(TableName="ChaliceChat", ConsistentRead=True)["Count"] == 0)


# An account for the tests of one file, which change it


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with new_cloud(tmp_path_factory.mktemp("account")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def template(account: Cloud) -> Path:
    """The packaged app, uploaded once."""
    return account.emulator.package()


@pytest.fixture(scope="module")
def deployed(account: Cloud, template: Path) -> str:
    """The address of a chat that was deployed without any parameter."""
    account.emulator.deploy_template(template)
    return account.emulator.url()


# The page, by default in front of a small chat


@pytest.fixture
def chat() -> Iterator[SmallChat]:
    with small_chat() as chat:
        yield chat


@pytest.fixture
def page_url(chat: SmallChat) -> str:
    """The address of the page that tabs open."""
    return chat.url


@pytest.fixture(scope="module")  # an open one forbids asyncio.run() elsewhere
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_tab(browser: Browser, page_url: str) -> Iterator[OpenTab]:
    with tabs(browser, page_url) as open_tab:
        yield open_tab


@pytest.fixture
def john(open_tab: OpenTab) -> Tab:
    """In the room tea."""
    return open_tab().opens().enters("John", "tea")


# People in the chat


@pytest.fixture
def connect(empty_chat: str) -> Iterator[Callable[[], Person]]:
    """Connects people, who have no name yet; they leave when the test ends."""
    with company(empty_chat) as connect:
        yield connect


@pytest.fixture
def arrive(connect: Callable[[], Person]) -> Callable[..., Person]:
    """Connects people with a name, and in a room if one is given."""

    def arrive(name: str, room: str | None = None) -> Person:
        person = connect()
        person.says(name)
        person.hears(f"Using nickname: {name}\nType /help for list of commands.")
        if room is not None:
            person.says(f"/join {room}")
            person.hears(f'Joined chat room "{room}"')
        return person

    return arrive
