"""The echo server, as its own page tells to use it."""

import re
import shutil
from pathlib import Path

from scripts.emulator import ROOT, endpoint_of
from tests.e2e.actors import Person
from tests.e2e.conftest import Cloud, eventually

FUNCTION = "echo-server-dev-websocket_message"


def test_the_echo_server_is_deployed_echoes_and_is_deleted(cloud: Cloud, tmp_path: Path) -> None:
    project = tmp_path / "echo-server"
    built = shutil.ignore_patterns("deployments", "deployed", "__pycache__")
    shutil.copytree(ROOT / "examples" / "echo-server", project, ignore=built)

    deployed = cloud.emulator.run("chalice", "deploy", cwd=project)
    found = re.search(r"- Websocket API URL: wss://(\w+)\.execute-api\..+/api/", deployed)
    assert found, deployed
    endpoint = endpoint_of(cloud.emulator.port, found.group(1))
    variables = f"{{AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI=http://{endpoint}}}"
    cloud.emulator.run(
        *("aws", "lambda", "update-function-configuration", "--function-name", FUNCTION),
        *("--environment", f"Variables={variables}"),
    )

    with Person(f"ws://{endpoint}") as person:
        for text in ("foo", "bar", "foo bar baz", '{"action": "$connect"}', "\u202e\x00"):
            person.says(text)
            person.hears(text)

    eventually(lambda: "REPORT" in logs(cloud, project))
    assert "ERROR" not in logs(cloud, project)

    cloud.emulator.run("chalice", "delete", cwd=project)
    assert FUNCTION not in str(cloud.client("lambda").list_functions()["Functions"])
    assert "echo-server" not in str(cloud.client("apigatewayv2").get_apis()["Items"])
    assert "echo-server" not in str(cloud.client("iam").list_roles()["Roles"])


def logs(cloud: Cloud, project: Path) -> str:
    return cloud.emulator.run(
        "chalice", "logs", "-n", "websocket_message", "--include-lambda-messages", cwd=project
    )
