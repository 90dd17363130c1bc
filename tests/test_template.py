"""The CloudFormation template, as Chalice really merges it from the app and `resources.json`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.emulator import BIN, REGION, ROOT, adapt_template, aws_environment
from scripts.slim import slim

API_GATEWAY_TIMEOUT = 29  # seconds; a function that runs longer works for nobody


@pytest.fixture(scope="module")
def sam_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chalice needs a region for this, and no credentials."""
    out = tmp_path_factory.mktemp("out")
    no_credentials = {name: os.environ[name] for name in os.environ if not name.startswith("AWS_")}
    subprocess.run(
        [BIN / "chalice", "package", "--merge-template", "resources.json", out],
        cwd=ROOT,
        env=no_credentials | {"AWS_DEFAULT_REGION": REGION},
        check=True,
    )
    return out / "sam.json"


@pytest.fixture(scope="module")
def template(sam_json: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(sam_json.read_text())
    return loaded


def of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by logical name."""
    return {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def statements(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for role in of_type(template, "AWS::IAM::Role").values():
        for policy in role["Policies"]:
            yield from policy["PolicyDocument"]["Statement"]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_the_three_routes_have_functions(template: dict[str, Any]) -> None:
    functions = of_type(template, "AWS::Serverless::Function")
    assert {"WebsocketConnect", "WebsocketMessage", "WebsocketDisconnect"} <= functions.keys()
    routes = of_type(template, "AWS::ApiGatewayV2::Route").values()
    assert {route["RouteKey"] for route in routes} == {"$connect", "$default", "$disconnect"}


def test_every_function_knows_the_table_and_has_a_role_and_limits(template: dict[str, Any]) -> None:
    for function in of_type(template, "AWS::Serverless::Function").values():
        assert function["Environment"]["Variables"]["TABLE"] == {"Ref": "ChaliceChatTable"}
        assert function["Role"] == {"Fn::GetAtt": ["DefaultRole", "Arn"]}
        assert 0 < function["Timeout"] <= API_GATEWAY_TIMEOUT
        assert function["MemorySize"] >= 128


def test_no_text_is_taken_for_a_route(template: dict[str, Any]) -> None:
    (api,) = of_type(template, "AWS::ApiGatewayV2::Api").values()
    assert api["RouteSelectionExpression"] == r"\$default"


def test_the_stage_is_called_api(template: dict[str, Any]) -> None:
    (stage,) = of_type(template, "AWS::ApiGatewayV2::Stage").values()
    assert stage["StageName"] == "api"


def test_the_addresses_are_in_the_outputs(template: dict[str, Any]) -> None:
    assert {"WebsocketConnectEndpointURL", "WebsocketAPIId"} <= template["Outputs"].keys()


def test_the_table_costs_nothing_idle_and_has_its_index(template: dict[str, Any]) -> None:
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    assert table["TableName"] == "ChaliceChat"
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert "ProvisionedThroughput" not in json.dumps(table)
    assert table["KeySchema"] == keys("PK", "SK")
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "ReverseLookup"
    assert index["KeySchema"] == keys("SK", "PK")
    assert index["Projection"] == {"ProjectionType": "ALL"}


def test_dynamodb_deletes_what_has_expired(template: dict[str, Any]) -> None:
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_nothing_may_scan_the_table(template: dict[str, Any]) -> None:
    actions = [
        action for statement in statements(template) for action in listed(statement["Action"])
    ]
    assert "dynamodb:Query" in actions
    assert "dynamodb:Scan" not in actions


def keys(partition: str, sort: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": partition, "KeyType": "HASH"},
        {"AttributeName": sort, "KeyType": "RANGE"},
    ]


def test_the_role_allows_single_actions_on_single_resources(template: dict[str, Any]) -> None:
    allowed = list(statements(template))
    assert allowed
    for statement in allowed:
        for action in listed(statement["Action"]):
            assert "*" not in action
        for resource in listed(statement["Resource"]):
            assert resource != "*"


def test_cfn_lint_finds_nothing(sam_json: Path) -> None:
    """But for the runtime's age (W2531): Chalice takes that of the Python that runs this."""
    command = [str(BIN / "cfn-lint"), "--ignore-checks", "W2531", "--", str(sam_json)]
    linted = subprocess.run(command, capture_output=True, text=True)
    assert linted.stdout + linted.stderr == ""
    assert linted.returncode == 0


def test_for_the_emulator_only_what_it_lacks_is_changed(template: dict[str, Any]) -> None:
    before = json.dumps(template)
    adapted = adapt_template(template, 4566)
    assert json.dumps(template) == before

    assert template["Resources"].keys() - adapted["Resources"].keys() == {"WebsocketAPIDeployment"}
    endpoint = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
    for function in of_type(adapted, "AWS::Serverless::Function").values():
        assert function["Environment"]["Variables"].pop(endpoint) == {
            "Fn::Sub": "http://127.0.0.1:4566/_aws/execute-api/${WebsocketAPI}/api"
        }
    (stage,) = of_type(adapted, "AWS::ApiGatewayV2::Stage").values()
    assert stage.pop("AutoDeploy") is True
    stage["DeploymentId"] = {"Ref": "WebsocketAPIDeployment"}
    adapted["Resources"]["WebsocketAPIDeployment"] = template["Resources"]["WebsocketAPIDeployment"]
    assert adapted == template


def test_the_emulators_environment_has_nothing_of_a_real_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_ROLE_ARN"):
        monkeypatch.setenv(name, "real")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    environment = aws_environment(4566)
    assert "real" not in environment.values()
    assert "eu-north-1" not in environment.values()
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"


@pytest.fixture(scope="module")
def package(sam_json: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployment package as it is shipped, unpacked."""
    slim(sam_json.parent / "deployment.zip")
    files = tmp_path_factory.mktemp("package")
    with zipfile.ZipFile(sam_json.parent / "deployment.zip") as archive:
        archive.extractall(files)
    return files


def test_the_package_has_what_the_functions_use_and_no_other_service(package: Path) -> None:
    described = {path.name for path in (package / "botocore" / "data").iterdir() if path.is_dir()}
    assert described == {"apigatewaymanagementapi", "dynamodb", "lambda"}
    for module in ("app.py", "chalicelib/fanout.py", "chalice/app.py", "boto3/__init__.py"):
        assert (package / module).exists()
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    assert size < 15_000_000


def test_the_package_works_with_nothing_else_installed(package: Path) -> None:
    """In Lambda's way: no site-packages, compiled files that are used and cannot be written."""
    use = (
        "import sys; sys.path.insert(0, sys.argv[1]); import app;"
        "[app.app.websocket_api.session.client(name, endpoint_url='http://127.0.0.1')"
        " for name in ('apigatewaymanagementapi', 'dynamodb', 'lambda')];"
        "print(app.STORAGE.__dict__['_table'].name, app.__cached__)"
    )
    environment = {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_LAMBDA_FUNCTION_NAME": "WebsocketMessage",
        "TABLE": "ChaliceChat",
    }
    used = subprocess.run(
        [sys.executable, "-I", "-B", "-S", "-c", use, str(package)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    table, compiled = used.stdout.split()
    assert table == "ChaliceChat"
    assert Path(compiled).exists()
    assert compiled.startswith(str(package))


def test_the_same_package_gives_the_same_bytes(sam_json: Path, package: Path) -> None:
    archive = sam_json.parent / "deployment.zip"
    before = archive.read_bytes()
    slim(archive)
    assert archive.read_bytes() == before
