"""The ways in which the emulator is made to look like AWS."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from emulator.emulator import EMULATOR_PYTHON, ROOT, Emulator, aws_environment
from emulator.function_process import on_this_machine
from scripts import Failure
from tests.e2e.actors import PATIENCE
from tests.e2e.conftest import Cloud

FUNCTION = """
import os, sys

def handler(event, context):
    print(event, end="")
    if event == "dies":
        sys.stdout.flush()
        os._exit(1)
"""

INVOKE = """
import json, pathlib, queue, sys, time
from emulator import server
from ministack.core import lambda_runtime

server.patch(sys.stdout)
put = queue.Queue.put
queue.Queue.put = lambda *arguments: (time.sleep(0.1), put(*arguments))  # a slow reader
arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
config = {"FunctionArn": arn, "Handler": "app.handler", "Role": "arn:r", "Runtime": "python3.11"}
worker = lambda_runtime.Worker("f", config, pathlib.Path(sys.argv[1]).read_bytes())
results = [worker.invoke(event, "id") for event in json.loads(sys.argv[2])]
worker.kill()
print(json.dumps([result["log"] or result.get("error", "") for result in results]))
"""


def invoke(directory: Path, code: str, *events: str) -> subprocess.CompletedProcess[str]:
    """Calls a function of the emulator; the last line of the output has its logs."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as file:
        file.writestr("app.py", code)
    (directory / "code.zip").write_bytes(package.getvalue())
    return subprocess.run(
        [EMULATOR_PYTHON, "-c", INVOKE, directory / "code.zip", json.dumps(events)],
        cwd=ROOT,
        env=aws_environment(1) | {"TMPDIR": str(directory)},
        capture_output=True,
        text=True,
    )


def test_a_functions_output_is_logged_with_its_own_invocation(tmp_path: Path) -> None:
    prints = ["a line\n", "", "unfinished", "two\nlines\n", "\n", "dies", "after that\n"]
    logs = json.loads(invoke(tmp_path, FUNCTION, *prints).stdout.splitlines()[-1])
    assert logs == ["a line", "", "unfinished", "two\nlines", "", "dies", "after that"]
    (unpacked,) = tmp_path.glob("code-*")  # once, for the process that died and the next one
    assert (unpacked / "app.py").read_text() == FUNCTION


DESCRIBE = """
import asyncio, io, sys, threading
from emulator import server
from ministack.services import cloudwatch_logs, lambda_svc

server.patch(io.StringIO())
headers = {"x-amz-target": "Logs_20140328.DescribeLogGroups"}

def log():
    function = {"config": {"FunctionName": "f", "MemorySize": 128}}
    for _ in range(1000):
        lambda_svc._emit_lambda_logs(function, "id", "a line", False, 1)

async def describe():
    while writer.is_alive():
        await cloudwatch_logs.handle_request("POST", "/", headers, b"{}", {})

sys.setswitchinterval(1e-6)
writer = threading.Thread(target=log)
writer.start()
asyncio.run(describe())
"""


def test_logs_are_described_while_functions_write_them() -> None:
    subprocess.run([EMULATOR_PYTHON, "-c", DESCRIBE], cwd=ROOT, env=aws_environment(1), check=True)


def test_no_figure_of_the_terminals_log_has_fifteen_digits() -> None:
    show = "import sys; from emulator.functions import readable; print(readable(sys.argv[1]))"
    line = '{"level": "INFO", "message": "done", "duration_ms": 25.700000000000003, "posts": 2}'
    shown = subprocess.check_output([EMULATOR_PYTHON, "-c", show, line], cwd=ROOT, text=True)
    assert shown == "INFO done duration_ms=25.7 posts=2\n"


def test_a_function_sees_no_library_that_its_package_lacks(tmp_path: Path) -> None:
    """MiniStack needs some, which Lambda does not have."""
    for library in ("yaml", "ministack"):
        failed = invoke(tmp_path, f"import {library}\n{FUNCTION}", "an event")
        assert f"Worker init failed: No module named '{library}'" in failed.stdout


UNABLE = """
from emulator import server

def clear_up(*arguments):
    raise OSError("Too many open files")

server.clear_up = clear_up
server.end_with_parent("nowhere", "0")
"""


def test_it_ends_even_if_it_cannot_clear_up() -> None:
    ended = subprocess.run(
        [EMULATOR_PYTHON, "-c", UNABLE],
        cwd=ROOT,
        env=aws_environment(1),
        stdin=subprocess.DEVNULL,
        process_group=0,
        stderr=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    assert ended.returncode == -signal.SIGKILL


def test_it_does_not_take_another_emulator_for_its_own(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other took the port after it was found to be free."""
    monkeypatch.setattr(Emulator, "_require_place", lambda _: None)
    with Emulator(cloud.emulator.port, tmp_path / "second") as second, pytest.raises(Failure):
        second.wait_until_ready()
    assert cloud.emulator.is_running()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "https://a1b2.execute-api.eu-north-1.amazonaws.com/api",
            "http://127.0.0.1:4600/_aws/execute-api/a1b2/api",
        ),
        (
            "https://a1b2.execute-api.cn-north-1.amazonaws.com.cn/dev/",
            "http://127.0.0.1:4600/_aws/execute-api/a1b2/dev",
        ),
        ("https://chat.example.com/api", "https://chat.example.com/api"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
    ],
)
def test_posts_to_api_gateway_go_to_the_emulator(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "4600")
    assert on_this_machine(url) == expected


EXPORTING = """
Resources:
  Topic:
    Type: AWS::SNS::Topic
Outputs:
  Topic:
    Value: !Ref Topic
    Export:
      Name: !Sub ${AWS::StackName}-Topic
"""

IMPORTING = """
Parameters:
  Other:
    Type: String
Resources:
  Target:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties:
      MinCapacity: {capacity}
  Alarm:
    Type: AWS::CloudWatch::Alarm
    DependsOn: Target
    Properties:
      AlarmActions: [!ImportValue {{"Fn::Sub": "${{Other}}-Topic"}}]
      ComparisonOperator: GreaterThanThreshold
      EvaluationPeriods: 1
      Threshold: {capacity}
      Metrics:
        - Id: all
          Expression: SUM(METRICS())
        - Id: one
          ReturnData: false
          MetricStat:
            Metric: {{Namespace: AWS/Lambda, MetricName: Errors}}
            Period: 300
            Stat: Sum
"""


def test_stacks_may_have_resources_that_it_does_not_emulate(cloud: Cloud, tmp_path: Path) -> None:
    """In YAML, with values of another stack; they are upgraded and deleted like any other."""
    template = tmp_path / "template.yaml"
    template.write_text(EXPORTING)
    cloud.emulator.deploy_template(template, stack="Exporting")
    for capacity in (5, 6):
        template.write_text(IMPORTING.format(capacity=capacity))
        cloud.emulator.deploy_template(template, stack="Importing", parameters=["Other=Exporting"])
        (alarm,) = alarms(cloud, "Importing")
        assert alarm["Threshold"] == capacity
        assert ":Exporting-Topic" in alarm["AlarmActions"][0]
    assert "AWS::ApplicationAutoScaling::ScalableTarget" in cloud.emulator.log.read_text()
    cloud.emulator.delete("Importing")
    cloud.emulator.delete("Exporting")
    assert alarms(cloud, "Importing") == []


def alarms(cloud: Cloud, stack: str) -> list[dict[str, Any]]:
    found = cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return [alarm for alarm in found if alarm["AlarmName"].startswith(stack)]
