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
import yaml  # which the AWS CLI brings, and writes templates with

from scripts.emulator import BIN, REGION, ROOT, aws_environment
from scripts.slim import slim

NO_VALUE = {"Ref": "AWS::NoValue"}
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
    """Whatever the role allows, under any parameters."""
    for role in of_type(template, "AWS::IAM::Role").values():
        for policy in role["Policies"]:
            policy = policy["Fn::If"][1] if "Fn::If" in policy else policy
            yield from policy["PolicyDocument"]["Statement"]
    for policy in of_type(template, "AWS::IAM::Policy").values():
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
        variables = function["Environment"]["Variables"]
        assert variables["TABLE"] == {"Ref": "ChaliceChatTable"}
        assert variables["STACK"] == {"Ref": "AWS::StackName"}
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
    assert table["BillingMode"] == {"Fn::If": ["Provisioned", "PROVISIONED", "PAY_PER_REQUEST"]}
    for throughput in (table, *table["GlobalSecondaryIndexes"]):
        assert throughput["ProvisionedThroughput"]["Fn::If"][::2] == ["Provisioned", NO_VALUE]
    assert template["Parameters"]["CapacityMode"]["Default"] == "on-demand"
    assert table["KeySchema"] == keys("PK", "SK")
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "ReverseLookup"
    assert index["KeySchema"] == keys("SK", "PK")
    assert index["Projection"] == {"ProjectionType": "ALL"}


def test_dynamodb_deletes_what_has_expired(template: dict[str, Any]) -> None:
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_a_crashed_fan_out_is_tried_again_and_then_kept(template: dict[str, Any]) -> None:
    """Lambda waits a minute before it tries again, so events must live longer than that."""
    (invocations,) = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    assert invocations["MaximumRetryAttempts"] == 1
    assert 60 < invocations["MaximumEventAgeInSeconds"] <= 180
    assert "OnFailure" in invocations["DestinationConfig"]


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
            assert resource != "*" or statement["Sid"] == "Trace"  # X-Ray has none to name


def test_the_role_names_this_table_this_api_these_functions_and_any_partition(
    template: dict[str, Any],
) -> None:
    """Nothing is given by a name that another stack's could begin with."""
    assert {
        (statement["Sid"], json.dumps(statement["Resource"])) for statement in statements(template)
    } == {
        ("WriteLogs", '{"Fn::GetAtt": ["FunctionLogs", "Arn"]}'),
        (
            "PostToConnections",
            '{"Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:'
            '${WebsocketAPI}/api/*/@connections/*"}',
        ),
        ("UseTable", '{"Fn::GetAtt": ["ChaliceChatTable", "Arn"]}'),
        ("ReadIndex", '{"Fn::Sub": "${ChaliceChatTable.Arn}/index/ReverseLookup"}'),
        ("KeepDeadLetters", '{"Fn::GetAtt": ["DeadLetters", "Arn"]}'),
        ("InvokeFanOut", '{"Fn::GetAtt": ["FanOut", "Arn"]}'),
        ("Trace", '"*"'),
    }


def test_the_log_group_is_the_stacks_own_and_nothing_may_create_another(
    template: dict[str, Any],
) -> None:
    """Functions of older stacks made /aws/lambda/..., which a stack could not create again."""
    groups = of_type(template, "AWS::Logs::LogGroup")
    assert groups.keys() == {"FunctionLogs", "ApiLogs"}
    for group in groups.values():
        assert group == {"RetentionInDays": {"Ref": "LogRetentionDays"}}
    assert template["Globals"]["Function"]["LoggingConfig"] == {"LogGroup": {"Ref": "FunctionLogs"}}
    (logs,) = (each for each in statements(template) if each["Sid"] == "WriteLogs")
    assert logs["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]


def test_tracing_brings_its_permissions_in_the_role_that_the_functions_wait_for(
    template: dict[str, Any],
) -> None:
    for function in of_type(template, "AWS::Serverless::Function").values():
        assert function["Tracing"] == {"Fn::If": ["Traced", "Active", "PassThrough"]}
    (policy,) = (
        policy
        for policy in template["Resources"]["DefaultRole"]["Properties"]["Policies"]
        if "Fn::If" in policy
    )
    condition, tracing, otherwise = policy["Fn::If"]
    assert (condition, otherwise) == ("Traced", NO_VALUE)
    (statement,) = tracing["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]


def test_the_stage_follows_its_api(template: dict[str, Any]) -> None:
    """Chalice's Deployment keeps its logical id, so it is made once and never again.

    It stays in the template: taking it away would delete what an older stack's stage is at.
    """
    stage = template["Resources"]["WebsocketAPIStage"]
    assert stage["Properties"]["AutoDeploy"] is True
    assert stage["Properties"]["DeploymentId"] == NO_VALUE
    assert "WebsocketAPIDeployment" in template["Resources"]
    assert of_type(template, "AWS::ApiGatewayV2::Route").keys() <= set(stage["DependsOn"])


def test_the_stage_has_limits_and_by_default_no_logs(template: dict[str, Any]) -> None:
    """Logs of a WebSocket stage need a role that belongs to the account, not to a stack."""
    (stage,) = of_type(template, "AWS::ApiGatewayV2::Stage").values()
    settings = stage["DefaultRouteSettings"]
    assert settings["ThrottlingRateLimit"] == {"Ref": "RequestRate"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "RequestBurst"}
    assert settings["DetailedMetricsEnabled"] == {"Fn::If": ["Monitored", True, False]}
    assert settings.keys().isdisjoint({"LoggingLevel", "DataTraceEnabled"})
    condition, logs, otherwise = stage["AccessLogSettings"]["Fn::If"]
    assert (condition, otherwise) == ("HasAccessLogs", NO_VALUE)
    line = json.loads(logs["Format"])
    assert line["request_id"] == "$context.requestId"  # which API Gateway insists on
    assert {"connection_id", "route", "status", "integration_error"} <= line.keys()
    assert template["Parameters"]["AccessLogs"]["Default"] == "off"
    assert not of_type(template, "AWS::ApiGateway::Account")


def test_iam_gets_no_names_that_need_another_capability(template: dict[str, Any]) -> None:
    named = {"AWS::IAM::ManagedPolicy", "AWS::IAM::User", "AWS::IAM::Group"}
    assert named.isdisjoint(resource["Type"] for resource in template["Resources"].values())
    for role in of_type(template, "AWS::IAM::Role").values():
        assert "RoleName" not in role
    assert template["Transform"] == "AWS::Serverless-2016-10-31"  # others need a capability too


def test_no_concurrency_is_reserved(template: dict[str, Any]) -> None:
    """A new account has 10 in all and has to keep some: reserving any fails there."""
    assert "ReservedConcurrentExecutions" not in json.dumps(template)


def test_no_upgrade_replaces_the_table(template: dict[str, Any]) -> None:
    """What replaces a table if it changes is as it was in the first release."""
    table = template["Resources"]["ChaliceChatTable"]
    assert table["Properties"]["TableName"] == {"Ref": "TableName"}
    assert template["Parameters"]["TableName"]["Default"] == "ChaliceChat"
    assert table["Properties"]["AttributeDefinitions"] == [
        {"AttributeName": "PK", "AttributeType": "S"},
        {"AttributeName": "SK", "AttributeType": "S"},
    ]
    assert table["Properties"]["KeySchema"] == keys("PK", "SK")
    assert (
        table["Properties"]
        .keys()
        .isdisjoint({"LocalSecondaryIndexes", "ImportSourceSpecification"})
    )


def test_what_is_deleted_with_the_stack_says_so(template: dict[str, Any]) -> None:
    for name in ("ChaliceChatTable", "DeadLetters", "FunctionLogs", "ApiLogs"):
        resource = template["Resources"][name]
        assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Delete"


def test_what_fan_out_cannot_do_is_kept_encrypted_and_not_for_long(
    template: dict[str, Any],
) -> None:
    (config,) = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    assert config["FunctionName"] == {"Ref": "FanOut"}
    assert config["DestinationConfig"]["OnFailure"]["Destination"] == {
        "Fn::GetAtt": ["DeadLetters", "Arn"]
    }
    (queue,) = of_type(template, "AWS::SQS::Queue").values()
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] <= 4 * 24 * 60 * 60


def test_every_parameter_has_a_default_and_explains_itself(template: dict[str, Any]) -> None:
    used = json.dumps([template[part] for part in ("Conditions", "Globals", "Resources")])
    grouped = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    listed_in_console = [name for group in grouped for name in group["Parameters"]]
    assert sorted(listed_in_console) == sorted(template["Parameters"])
    for name, parameter in template["Parameters"].items():
        assert {"Default", "Description", "ConstraintDescription"} <= parameter.keys()
        assert parameter.keys() & {"AllowedValues", "AllowedPattern", "MinValue"}
        assert f'{{"Ref": "{name}"}}' in used


OWN_METRICS = {
    *("ConnectionsOpened", "ConnectionsClosed", "Texts", "LinesDelivered", "MembersGone"),
    *("PostsFailed", "FramesFailed", "FanOutMilliseconds"),
}


def test_every_alarm_tells_the_topic_and_names_this_stack(template: dict[str, Any]) -> None:
    alarms = of_type(template, "AWS::CloudWatch::Alarm")
    assert alarms.keys() == {
        *("FunctionErrorsAlarm", "FunctionThrottlesAlarm", "FramesFailedAlarm", "SlowAlarm"),
        *("PostsFailedAlarm", "TableThrottlesAlarm", "DeadLettersAlarm"),
    }
    functions = of_type(template, "AWS::Serverless::Function").keys()
    for name, alarm in alarms.items():
        assert template["Resources"][name]["Condition"] == "Monitored"
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]
        assert alarm["AlarmDescription"]
        assert alarm["TreatMissingData"] == "notBreaching"  # nobody there is no alarm
        if alarm.get("Namespace") == "ChaliceChat":
            assert alarm["MetricName"] in OWN_METRICS
            assert alarm["Dimensions"] == [{"Name": "Stack", "Value": {"Ref": "AWS::StackName"}}]
    for name in ("FunctionErrorsAlarm", "FunctionThrottlesAlarm"):
        assert {
            metric["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"]
            for metric in alarms[name]["Metrics"]
            if "MetricStat" in metric
        } == functions
    assert alarms["SlowAlarm"]["Threshold"] < API_GATEWAY_TIMEOUT * 1000


def test_alarms_reach_the_topic(template: dict[str, Any]) -> None:
    """CloudWatch may not use the key that AWS manages for SNS."""
    assert "Properties" not in template["Resources"]["AlarmTopic"]
    subscription = template["Resources"]["AlarmSubscription"]
    assert subscription["Condition"] == "HasAlarmEmail"
    assert template["Parameters"]["AlarmEmail"]["Default"] == ""


def test_it_can_be_deployed_without_a_bucket_for_the_template(
    sam_json: Path, template: dict[str, Any]
) -> None:
    """`aws cloudformation deploy` takes 51,200 bytes; there is room for the addresses of the code."""
    packaged = sam_json.with_name("packaged.yml")
    packaged.write_text(yaml.safe_dump(template))
    assert packaged.stat().st_size < 48_000


def test_cfn_lint_finds_nothing(sam_json: Path) -> None:
    """Not even what is for information only, except for

    - W2531, the runtime's age: Chalice takes that of the Python that runs this;
    - I1022, which wants Fn::Sub instead of Fn::Join: that cannot put the dashboard's quotes back.
    """
    command = [str(BIN / "cfn-lint"), "--include-checks", "I", "--ignore-checks", "W2531", "I1022"]
    command += ["--", str(sam_json)]
    linted = subprocess.run(command, capture_output=True, text=True)
    assert linted.stdout + linted.stderr == ""
    assert linted.returncode == 0


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
    for module in ("app.py", "chalicelib/posting/poster.py", "chalice/app.py", "boto3/__init__.py"):
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
