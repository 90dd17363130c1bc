"""The life of a deployment: seen working, redeployed, failing, deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from emulator.emulator import ROOT
from emulator.processes import locked
from tests.e2e.actors import Person
from tests.e2e.conftest import Cloud, Quick, eventually, free_port, new_cloud

APP_FILES = ("app.py", "resources.json", "requirements.txt")
APP_DIRECTORIES = ("chalicelib", ".chalice")


def copy_project(copy: Path) -> Path:
    """A copy of the app that a test may change."""
    copy.mkdir()
    for name in APP_FILES:
        shutil.copy(ROOT / name, copy)
    with locked(ROOT / ".chalice"):  # so that no package in it is half written
        for name in APP_DIRECTORIES:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


@pytest.fixture
def own_cloud(tmp_path: Path) -> Iterator[Cloud]:
    """An emulator for this test alone."""
    with new_cloud(tmp_path) as cloud:
        yield cloud


def test_a_stack_is_redeployed_fails_visibly_and_is_deleted(
    own_cloud: Cloud, project: Path
) -> None:
    url = own_cloud.emulator.deploy(project)
    with Person(url) as john:
        john.says("John")
        john.hears("Using nickname: John\nType /help for list of commands.")

    app = project / "app.py"
    app.write_text(app.read_text() + NEW_HANDLER)
    assert own_cloud.emulator.deploy(project) == url
    with Person(url) as john:
        john.says("John")
        john.hears("the new code says John")
        john.says("fail")
        eventually(lambda: "RuntimeError: on purpose" in own_cloud.functions_output.read_text())
        output = own_cloud.functions_output.read_text()
        assert "Traceback (most recent call last):" in output
        assert "WebsocketMessage" in output
        john.hears_of_a_failure()

    assert any("on purpose" in line for line in logged(own_cloud))

    eventually(lambda: departures(own_cloud) == 2)
    with Person(url) as john:
        own_cloud.emulator.delete()
        john.is_disconnected()
    nothing_is_left(own_cloud)


def test_the_chat_goes_on_while_nobody_reads_its_output(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"more than fits\n")
    os.set_blocking(writer, True)
    with (
        os.fdopen(writer, "w") as output,
        Quick(free_port(), tmp_path / "emulator", functions_output=output) as emulator,
        Person(emulator.deploy()) as john,
    ):
        john.says("John")
        john.hears("Using nickname: John\nType /help for list of commands.")
        assert logged(Cloud(emulator, tmp_path))  # does not wait either
        os.close(reader)
        for _ in range(2):
            john.says("/nick")
            john.hears("Current nickname: John")
        assert "BrokenPipeError" not in emulator.log.read_text()


NEW_HANDLER = """

def answer(connection_id: str, body: str, account: None) -> None:
    if body == "fail":
        raise RuntimeError("on purpose")
    SENDER.send(connection_id, f"the new code says {body}")


HANDLER.handle = answer
"""


def logged(cloud: Cloud) -> list[str]:
    """The lines in CloudWatch Logs."""
    logs = cloud.client("logs")
    groups = [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]]
    return [
        event["message"]
        for group in groups
        for event in logs.filter_log_events(logGroupName=group)["events"]
    ]


def departures(cloud: Cloud) -> int:
    """The number of departures that have been handled and logged."""
    return len([line for line in logged(cloud) if '"route":"$disconnect"' in line])


def nothing_is_left(cloud: Cloud) -> None:
    assert cloud.client("dynamodb").list_tables()["TableNames"] == []
    assert cloud.client("lambda").list_functions()["Functions"] == []
    assert cloud.client("apigatewayv2").get_apis()["Items"] == []
    assert cloud.client("apigateway").get_rest_apis()["items"] == []
    assert cloud.client("iam").list_roles()["Roles"] == []
    assert cloud.client("sqs").list_queues().get("QueueUrls", []) == []
    assert cloud.client("sns").list_topics()["Topics"] == []
    assert cloud.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert cloud.client("cloudwatch").list_dashboards()["DashboardEntries"] == []
    groups = cloud.client("logs").describe_log_groups()["logGroups"]
    names = [group["logGroupName"] for group in groups]
    assert [name for name in names if not name.startswith("/aws/lambda/")] == []
