"""The two templates: monitoring's, and the chat's, as Chalice merges it with `resources.json`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # a dependency of the AWS CLI, which writes templates with it
from awscli.customizations.cloudformation.yamlhelper import yaml_parse

from emulator.emulator import BIN, REGION, ROOT, aws_environment
from scripts.package import KEPT, without_account
from scripts.package import package as package_project
from scripts.slim import FOR_TOKENS, PACKAGES
from tests.e2e.test_five_packages import clone_to
from tests.e2e.test_stack import copy_project

MONITORING = ROOT / "monitoring.yaml"
pytestmark = pytest.mark.e2e

NO_VALUE = {"Ref": "AWS::NoValue"}
PAGE = "APIHandler"  # the function that serves the web page
FUNCTIONS = {"WebsocketConnect", "WebsocketMessage", "WebsocketDisconnect"}
API_GATEWAY_TIMEOUT = 29  # seconds; nobody waits for a function that runs longer

Template = dict[str, Any]


def package_app(project: Path, out: Path) -> Path:
    """Package the app; returns its template. This needs no account."""
    environment = without_account()
    package_project(
        project,
        out,
        lambda command, copy, settings: subprocess.run(
            [BIN / command[0], *command[1:]], cwd=copy, env=environment | settings, check=True
        ),
    )
    return out / "sam.json"


@pytest.fixture(scope="module")
def sam_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_app(ROOT, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def template(sam_json: Path) -> Template:
    loaded: Template = json.loads(sam_json.read_text())
    return loaded


@pytest.fixture(scope="module")
def monitoring() -> Template:
    """With `!Ref` and the other short forms expanded."""
    loaded: Template = yaml_parse(MONITORING.read_text())
    return loaded


def of_type(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by logical name."""
    return {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def only(template: Template, kind: str) -> dict[str, Any]:
    """The properties of the one resource of a type."""
    (properties,) = of_type(template, kind).values()
    return properties


def functions(template: Template) -> dict[str, dict[str, Any]]:
    """Those of the chat, without the authorizer and the web page's."""
    found = of_type(template, "AWS::Serverless::Function")
    assert found.keys() == FUNCTIONS | {"Authorize", PAGE}
    return {name: found[name] for name in FUNCTIONS}


def variables(template: Template, function: dict[str, Any]) -> dict[str, Any]:
    """A function's environment, as SAM merges it from `Globals` and the function's own."""
    shared: dict[str, Any] = template["Globals"]["Function"]["Environment"]["Variables"]
    return shared | function["Environment"]["Variables"]


def statements(template: Template) -> Iterator[dict[str, Any]]:
    """All permissions of the functions, under any parameters."""
    documents = [
        policy["PolicyDocument"]
        for role in of_type(template, "AWS::IAM::Role").values()
        for policy in role.get("Policies", ())
    ]
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        documents += [policy["PolicyDocument"] for policy in of_type(template, kind).values()]
    for document in documents:
        for statement in document["Statement"]:
            yield statement["Fn::If"][1] if "Fn::If" in statement else statement


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def values_of(value: Any, key: str) -> Iterator[Any]:
    """The values of a key, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from values_of(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from values_of(inner, key)


# The API and its functions


def test_the_three_routes_have_functions_and_the_address_is_an_output(template: Template) -> None:
    routes = of_type(template, "AWS::ApiGatewayV2::Route").values()
    assert {route["RouteKey"] for route in routes} == {"$connect", "$default", "$disconnect"}
    assert only(template, "AWS::ApiGatewayV2::Stage")["StageName"] == "api"
    assert {"WebsocketConnectEndpointURL", "WebsocketAPIId"} <= template["Outputs"].keys()


def test_every_function_has_its_settings_and_limits(template: Template) -> None:
    for function in functions(template).values():
        assert function["Environment"]["Variables"]["TABLE"] == {"Ref": "ChaliceChatTable"}
        assert variables(template, function)["STACK"] == {"Ref": "AWS::StackName"}
        assert function["Role"] == {"Fn::GetAtt": ["DefaultRole", "Arn"]}
        assert function["Tracing"] == {"Fn::If": ["Traced", "Active", "PassThrough"]}
        assert 0 < function["Timeout"] <= API_GATEWAY_TIMEOUT
        assert function["MemorySize"] >= 128


def test_every_function_posts_to_the_apis_own_address(template: Template) -> None:
    """The `domainName` of an event may be a custom domain, which does not accept posts."""
    (api,) = of_type(template, "AWS::ApiGatewayV2::Api")
    stage = only(template, "AWS::ApiGatewayV2::Stage")["StageName"]
    address = f"https://${{{api}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}/{stage}"
    for function in functions(template).values():
        assert variables(template, function)["AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"] == {
            "Fn::Sub": address
        }


def test_a_custom_domain_of_chalices_configuration_is_in_the_template(tmp_path: Path) -> None:
    """By docs/operating.md's recipe; `(none)`, Chalice's default, would be part of the address."""
    (recipe,) = re.findall(
        r'"websocket_api_custom_domain": \{.*?\}',
        (ROOT / "docs" / "operating.md").read_text(),
        re.DOTALL,
    )
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    config["stages"]["dev"] |= json.loads(f"{{{recipe}}}")
    project = copy_project(tmp_path / "project")
    (project / ".chalice" / "config.json").write_text(json.dumps(config))
    template = json.loads(package_app(project, tmp_path / "out").read_text())
    domain = only(template, "AWS::ApiGatewayV2::DomainName")
    assert domain["DomainName"] == "chat.example.com"
    mapping = only(template, "AWS::ApiGatewayV2::ApiMapping")
    assert (mapping["ApiMappingKey"], mapping["Stage"]) == ("", {"Ref": "WebsocketAPIStage"})


def test_no_text_is_taken_for_a_route(template: Template) -> None:
    assert only(template, "AWS::ApiGatewayV2::Api")["RouteSelectionExpression"] == r"\$default"


SIGN_IN = {"Authorize", "Authorizer", "AuthorizePermission", "AuthorizeRole"}


def test_without_an_issuer_nothing_of_sign_in_is_created(template: Template) -> None:
    """Nor refers any other resource to it, under any other condition."""
    for name, resource in template["Resources"].items():
        assert (resource.get("Condition") == "HasTokenIssuer") == (name in SIGN_IN)
    for name in SIGN_IN:
        assert name in template["Resources"]
    route = template["Resources"]["WebsocketConnectRoute"]["Properties"]
    assert route["AuthorizationType"] == {"Fn::If": ["HasTokenIssuer", "CUSTOM", "NONE"]}
    assert route["AuthorizerId"] == {"Fn::If": ["HasTokenIssuer", {"Ref": "Authorizer"}, NO_VALUE]}
    connect = functions(template)["WebsocketConnect"]["Environment"]["Variables"]
    assert connect["SIGN_IN"] == {"Fn::If": ["HasTokenIssuer", "on", NO_VALUE]}
    assert template["Parameters"]["TokenIssuer"]["Default"] == ""


@pytest.mark.parametrize(
    ("rule", "one", "other"),
    [
        ("AudienceOfTokens", "TokenIssuer", "TokenAudience"),
        ("IssuerOfSignIn", "SignInClient", "TokenIssuer"),
    ],
)
def test_one_parameter_needs_another(template: Template, rule: str, one: str, other: str) -> None:
    (assertion,) = template["Rules"][rule]["Assertions"]
    assert template["Rules"][rule]["RuleCondition"] == is_given(one)
    assert assertion["Assert"] == is_given(other)
    assert assertion["AssertDescription"].startswith(f"{one} needs a {other}: ")


def is_given(parameter: str) -> Template:
    return {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, ""]}]}


@pytest.mark.parametrize(
    ("url", "is_accepted"),
    [
        ("", True),
        ("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI", True),
        ("https://tenant.eu.auth0.com/", True),
        ("https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0", True),
        ("https://keycloak.example.com:8443/realms/chat", True),
        ("http://keycloak.example.com/realms/chat", False),
        ("https://", False),
        ("https://user@example.com/", False),
        ("https://example.com/?a=b", False),
        ("https://example.com/\n", False),
    ],
)
def test_an_issuer_is_an_https_url(template: Template, url: str, is_accepted: bool) -> None:
    pattern = template["Parameters"]["TokenIssuer"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, url)) == is_accepted


def test_the_authorizer_gets_the_token_and_nothing_of_the_chat(template: Template) -> None:
    authorizer = only(template, "AWS::ApiGatewayV2::Authorizer")
    assert authorizer["AuthorizerType"] == "REQUEST"
    assert authorizer["IdentitySource"] == ["route.request.querystring.token"]
    assert "functions/${Authorize.Arn}/invocations" in authorizer["AuthorizerUri"]["Fn::Sub"]
    permission = template["Resources"]["AuthorizePermission"]["Properties"]
    assert permission["SourceArn"]["Fn::Sub"].endswith(":${WebsocketAPI}/authorizers/*")
    function = template["Resources"]["Authorize"]["Properties"]
    assert function["Role"] == {"Fn::GetAtt": ["AuthorizeRole", "Arn"]}
    assert function["Timeout"] < API_GATEWAY_TIMEOUT
    assert "TABLE" not in variables(template, function)


def test_the_stage_follows_its_api(template: Template) -> None:
    """Chalice's Deployment keeps its logical id, so it is created only once.

    It stays in the template: without it, an upgrade would delete the deployment of an older stage.
    """
    stage = template["Resources"]["WebsocketAPIStage"]
    assert stage["Properties"]["AutoDeploy"] is True
    assert stage["Properties"]["DeploymentId"] == NO_VALUE
    assert "WebsocketAPIDeployment" in template["Resources"]
    assert of_type(template, "AWS::ApiGatewayV2::Route").keys() <= set(stage["DependsOn"])


def test_connects_and_frames_are_throttled_and_departures_are_not(template: Template) -> None:
    """A throttled $disconnect is lost: API Gateway does not retry it."""
    stage = only(template, "AWS::ApiGatewayV2::Stage")
    throttle = {
        "ThrottlingRateLimit": {"Ref": "RequestRate"},
        "ThrottlingBurstLimit": {"Ref": "RequestBurst"},
    }
    assert stage["RouteSettings"] == {"$connect": throttle, "$default": throttle}
    assert "DefaultRouteSettings" not in stage


def test_access_logs_are_off_by_default(template: Template) -> None:
    """They need a role that belongs to the account, not to a stack."""
    chat = only(template, "AWS::ApiGatewayV2::Stage")["AccessLogSettings"]
    page = only(template, "AWS::Serverless::Api")["AccessLogSetting"]
    for settings in (chat, page):
        condition, _, otherwise = settings["Fn::If"]
        assert (condition, otherwise) == ("HasAccessLogs", NO_VALUE)
    assert template["Parameters"]["AccessLogs"]["Default"] == "off"
    assert not of_type(template, "AWS::ApiGateway::Account")


# The web page


def test_without_the_page_nothing_of_it_exists(template: Template) -> None:
    """Whatever mentions one of its resources depends on the parameter, and nothing else does."""
    of_page = {
        name
        for name, resource in template["Resources"].items()
        if resource.get("Condition") == "HasWebPage"
    }
    assert {"RestAPI", "APIHandler", "APIHandlerInvokePermission", "PageRole"} == of_page
    mention = re.compile("|".join(rf"\b{name}\b" for name in of_page))
    for part in ("Resources", "Outputs"):
        for name, value in template[part].items():
            is_conditional = value.get("Condition") == "HasWebPage"
            assert is_conditional == bool(name in of_page or mention.search(json.dumps(value)))
    assert template["Parameters"]["WebPage"]["Default"] == "on"


def test_only_the_pages_function_knows_where_people_sign_in(template: Template) -> None:
    given = template["Resources"][PAGE]["Properties"]["Environment"]["Variables"]
    for variable, parameter in {"ISSUER": "TokenIssuer", "CLIENT": "SignInClient"}.items():
        value = {"Fn::If": ["HasTokenIssuer", {"Ref": parameter}, NO_VALUE]}
        assert given[f"SIGN_IN_{variable}"] == value
    refs = list(values_of([template["Globals"], template["Resources"]], "Ref"))
    assert refs.count("SignInClient") == 1


def test_the_page_is_throttled_in_one_regional_stage(template: Template) -> None:
    api = only(template, "AWS::Serverless::Api")
    assert api["MethodSettings"] == [
        {
            "HttpMethod": "*",
            "ResourcePath": "/*",
            "ThrottlingRateLimit": {"Ref": "RequestRate"},
            "ThrottlingBurstLimit": {"Ref": "RequestBurst"},
        }
    ]
    assert api["OpenApiVersion"] == "2.0"  # without it, SAM adds a stage that is not throttled
    assert api["EndpointConfiguration"] == {"Type": "REGIONAL"}


# The table


def test_no_upgrade_replaces_the_table(template: Template) -> None:
    """The properties whose change replaces a table are those of the first release."""
    table = only(template, "AWS::DynamoDB::Table")
    assert table["TableName"] == {"Ref": "TableName"}
    assert template["Parameters"]["TableName"]["Default"] == "ChaliceChat"
    assert table["AttributeDefinitions"] == [
        {"AttributeName": "PK", "AttributeType": "S"},
        {"AttributeName": "SK", "AttributeType": "S"},
    ]
    assert table["KeySchema"] == keys("PK", "SK")
    assert table.keys().isdisjoint({"LocalSecondaryIndexes", "ImportSourceSpecification"})


def test_the_table_has_its_index_and_expiry(template: Template) -> None:
    table = only(template, "AWS::DynamoDB::Table")
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "ReverseLookup"
    assert index["KeySchema"] == keys("SK", "PK")
    assert index["Projection"] == {"ProjectionType": "ALL"}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def keys(partition: str, sort: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": partition, "KeyType": "HASH"},
        {"AttributeName": sort, "KeyType": "RANGE"},
    ]


# Permissions


def test_every_permission_is_for_a_resource_of_this_stack_in_any_partition(
    template: Template,
) -> None:
    """None is for a prefix that another stack's names could share."""
    for statement in statements(template):
        if statement["Sid"] != "SendTraces":  # X-Ray has no resources to name
            for resource in listed(statement["Resource"]):
                assert is_own(template, resource), statement


def is_own(template: Template, resource: Any) -> bool:
    match resource:
        case {"Fn::GetAtt": [str(name), "Arn"]}:
            return name in template["Resources"]
        case {"Fn::Sub": str(arn)}:
            named = re.search(
                r"^(arn:\$\{AWS::Partition\}:[\w-]+:\$\{AWS::Region\}:\$\{AWS::AccountId\}:)?"
                r"\$\{(\w+)(\.Arn)?\}(/|$)",
                arn,
            )
            return named is not None and named[2] in template["Resources"]
    return False


def test_posts_are_all_that_the_chat_does_with_its_api(template: Template) -> None:
    """With the same permission for its routes, a function could invoke the others."""
    own = [each for each in statements(template) if "WebsocketAPI" in json.dumps(each)]
    for statement in own:
        assert statement["Action"] == "execute-api:ManageConnections"
        assert statement["Resource"]["Fn::Sub"].endswith("${WebsocketAPI}/api/*/@connections/*")
    assert own


def test_functions_that_do_not_know_the_table_may_log_and_nothing_else(template: Template) -> None:
    """The chat's permissions go with the name of its table. tests/e2e/test_operations.py shows that
    each is needed; so there are no policies but those that it looks at: the roles' own."""
    for function in of_type(template, "AWS::Serverless::Function").values():
        role = template["Resources"][function["Role"]["Fn::GetAtt"][0]]["Properties"]
        assert bool(role.get("Policies")) == ("TABLE" in variables(template, function))
    roles = [template["Resources"][name]["Properties"]["Role"] for name in ("Authorize", PAGE)]
    assert roles == [{"Fn::GetAtt": [f"{name}Role", "Arn"]} for name in ("Authorize", "Page")]
    assert not of_type(template, "AWS::IAM::Policy")
    assert of_type(template, "AWS::IAM::ManagedPolicy").keys() == {"LogAndTrace"}


def test_the_role_allows_single_actions_and_no_scan(template: Template) -> None:
    actions = {
        action for statement in statements(template) for action in listed(statement["Action"])
    }
    assert "dynamodb:Query" in actions
    assert "dynamodb:Scan" not in actions
    assert not [action for action in actions if "*" in action]


def test_every_role_may_log_and_trace_before_its_functions_exist(template: Template) -> None:
    """Lambda refuses active tracing otherwise."""
    policy = template["Resources"]["LogAndTrace"]["Properties"]["PolicyDocument"]
    logs, traces = policy["Statement"]
    assert logs["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    condition, traces, otherwise = traces["Fn::If"]
    assert (condition, otherwise) == ("Traced", NO_VALUE)
    assert traces["Action"] == ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    for role in of_type(template, "AWS::IAM::Role").values():
        assert role["ManagedPolicyArns"] == [{"Ref": "LogAndTrace"}]


def test_iam_resources_have_no_names_that_need_another_capability(template: Template) -> None:
    for kind in ("User", "Group"):
        assert not of_type(template, f"AWS::IAM::{kind}")
    for kind in ("Role", "ManagedPolicy"):
        for properties in of_type(template, f"AWS::IAM::{kind}").values():
            assert properties.keys().isdisjoint({"RoleName", "ManagedPolicyName"})
    assert template["Transform"] == "AWS::Serverless-2016-10-31"  # others need a capability too


# The stack as a whole


def test_it_costs_nothing_idle(template: Template) -> None:
    """None of these types is billed by the hour; alarms and dashboard are in the other stack."""
    assert {resource["Type"] for resource in template["Resources"].values()} == {
        *("AWS::ApiGatewayV2::Api", "AWS::ApiGatewayV2::Authorizer"),
        "AWS::ApiGatewayV2::Deployment",
        *("AWS::ApiGatewayV2::Integration", "AWS::ApiGatewayV2::Route"),
        *("AWS::ApiGatewayV2::Stage", "AWS::DynamoDB::Table", "AWS::IAM::ManagedPolicy"),
        *("AWS::IAM::Role", "AWS::Lambda::Permission", "AWS::Logs::LogGroup"),
        *("AWS::Serverless::Api", "AWS::Serverless::Function"),
    }
    assert only(template, "AWS::DynamoDB::Table")["BillingMode"] == "PAY_PER_REQUEST"
    assert "ProvisionedConcurrency" not in json.dumps(template)


def test_no_concurrency_is_reserved(template: Template) -> None:
    """A new account has 10 in all and has to keep some: reserving any fails there."""
    assert "ReservedConcurrentExecutions" not in json.dumps(template)


def test_the_log_groups_are_the_stacks_own(template: Template) -> None:
    """Functions of older stacks created /aws/lambda/..., so a stack could not create it again."""
    groups = of_type(template, "AWS::Logs::LogGroup")
    assert groups.keys() == {"FunctionLogs", "ApiLogs"}
    for group in groups.values():
        assert group == {"RetentionInDays": {"Ref": "LogRetentionDays"}}
    assert template["Globals"]["Function"]["LoggingConfig"] == {
        "LogGroup": {"Ref": "FunctionLogs"},
        "LogFormat": "JSON",
    }


@pytest.mark.parametrize("name", ["ChaliceChatTable", "FunctionLogs", "ApiLogs"])
def test_data_is_deleted_with_the_stack_on_purpose(template: Template, name: str) -> None:
    resource = template["Resources"][name]
    assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Delete"


@pytest.mark.parametrize("of", ["template", "monitoring"])
def test_every_parameter_has_a_default_and_explains_itself(
    of: str, request: pytest.FixtureRequest
) -> None:
    parsed = request.getfixturevalue(of)
    used = list(
        values_of([parsed.get(part) for part in ("Conditions", "Globals", "Resources")], "Ref")
    )
    for name, parameter in parsed["Parameters"].items():
        assert {"Default", "Description", "ConstraintDescription"} <= parameter.keys()
        assert parameter.keys() & {"AllowedValues", "AllowedPattern", "MinValue"}
        assert name in used
    for grouped in values_of(
        parsed.get("Metadata"), "ParameterGroups"
    ):  # as the console shows them
        names = [name for group in grouped for name in group["Parameters"]]
        assert sorted(names) == sorted(parsed["Parameters"])


def test_it_can_be_deployed_without_a_bucket_for_the_template(
    sam_json: Path, template: Template
) -> None:
    """`aws cloudformation deploy` accepts 51,200 bytes; the code's addresses need some of them."""
    packaged = sam_json.with_name("packaged.yml")
    packaged.write_text(yaml.safe_dump(template))
    for file in (packaged, MONITORING):
        assert file.stat().st_size < 48_000


def test_cfn_lint_finds_nothing(sam_json: Path) -> None:
    """Not even informational findings, except W2531, the age of the Python that runs this.

    In `sam.json`, cfn-lint does not check names that begin like a function: SAM might add them.
    """
    command = [sys.executable, "-m", "scripts.expand", str(sam_json.parent)]
    noted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert noted.stdout.startswith("Not linted: ")
    command = [str(BIN / "cfn-lint"), "--include-checks", "I", "--ignore-checks", "W2531"]
    command += ["--", str(sam_json), str(sam_json.with_name("expanded.json")), str(MONITORING)]
    linted = subprocess.run(command, capture_output=True, text=True)
    assert linted.stdout + linted.stderr == ""
    assert linted.returncode == 0


# Monitoring


def test_monitoring_imports_exactly_the_exports_of_the_chat(
    template: Template, monitoring: Template
) -> None:
    exports = {name["Fn::Sub"] for name in values_of(list(values_of(template, "Export")), "Name")}
    imports = {name["Fn::Sub"] for name in values_of(monitoring, "Fn::ImportValue")}
    assert {name.replace("${AWS::StackName}", "${ChatStack}") for name in exports} == imports


def alarm_metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that an alarm evaluates, in either notation."""
    return [each["MetricStat"]["Metric"] for each in alarm.get("Metrics", [])[1:]] or [alarm]


@pytest.mark.parametrize(
    ("name", "namespace", "metrics", "about"),
    [
        ("FunctionErrorsAlarm", "AWS/Lambda", {"Errors"}, FUNCTIONS),
        ("FunctionThrottlesAlarm", "AWS/Lambda", {"Throttles"}, FUNCTIONS),
        ("FramesFailedAlarm", "ChaliceChat", {"FramesFailed"}, {"ChatStack"}),
        ("PostsFailedAlarm", "ChaliceChat", {"PostsFailed"}, {"ChatStack"}),
        ("SignInsFailedAlarm", "ChaliceChat", {"SignInsFailed"}, {"ChatStack"}),
        ("PageErrorsAlarm", "AWS/ApiGateway", {"5XXError"}, {"ChatStack"}),
        (
            "TableThrottlesAlarm",
            "AWS/DynamoDB",
            {"ReadThrottleEvents", "WriteThrottleEvents"},
            {"Table"},
        ),
        ("SlowAlarm", "AWS/ApiGateway", {"IntegrationLatency"}, {"WebsocketAPI"}),
    ],
)
def test_an_alarm_is_about_this_chat_and_in_the_docs(
    monitoring: Template, name: str, namespace: str, metrics: set[str], about: set[str]
) -> None:
    alarm = monitoring["Resources"][name]["Properties"]
    assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]
    assert alarm["AlarmDescription"]
    assert alarm["TreatMissingData"] == "notBreaching"  # an empty chat raises no alarm
    assert {metric["Namespace"] for metric in alarm_metrics(alarm)} == {namespace}
    assert {metric["MetricName"] for metric in alarm_metrics(alarm)} == metrics
    first = [metric["Dimensions"][0]["Value"] for metric in alarm_metrics(alarm)]
    imports = {name["Fn::Sub"].split("-")[-1] for name in values_of(first, "Fn::ImportValue")}
    assert imports | set(values_of(first, "Ref")) == about
    assert f"| `{name}` |" in (ROOT / "docs" / "operating.md").read_text()


def test_slow_alarms_before_api_gateway_times_out(monitoring: Template) -> None:
    alarm = monitoring["Resources"]["SlowAlarm"]["Properties"]
    assert alarm["Threshold"] < API_GATEWAY_TIMEOUT * 1000


def test_alarms_reach_the_topic_and_an_address_only_if_there_is_one(monitoring: Template) -> None:
    """CloudWatch may not use the key that AWS manages for SNS."""
    assert "KmsMasterKeyId" not in only(monitoring, "AWS::SNS::Topic")
    assert monitoring["Resources"]["AlarmSubscription"]["Condition"] == "HasAlarmEmail"
    assert monitoring["Parameters"]["AlarmEmail"]["Default"] == ""


def test_the_dashboard_shows_every_function_and_metrics_that_the_app_counts(
    monitoring: Template,
) -> None:
    body, values = only(monitoring, "AWS::CloudWatch::Dashboard")["DashboardBody"]["Fn::Sub"]
    assert set(re.findall(r"\$\{(.*?)\}", body)) == {*values, "AWS::Region", "ChatStack"}
    widgets = [widget["properties"] for widget in json.loads(body)["widgets"]]
    shown = [metric for widget in widgets for metric in written_out(widget["metrics"])]
    assert {metric[3][2:-1] for metric in shown if metric[0] == "AWS/Lambda"} == FUNCTIONS
    code = "\n".join(file.read_text() for file in (ROOT / "chalicelib").rglob("*.py"))
    own = {metric[1] for metric in shown if metric[0] == "ChaliceChat"}
    assert len(own) == 9
    assert not [name for name in own if not re.search(rf"\b{name}\b", code)]


def written_out(metrics: list[list[Any]]) -> Iterator[list[str]]:
    """CloudWatch's shorthand in full: "." is the field above, "..." the whole metric above."""
    above: list[str] = []
    for metric in metrics:
        fields = [field for field in metric if isinstance(field, str)]
        if fields != ["..."]:
            above = [above[n] if field == "." else field for n, field in enumerate(fields)]
        yield above


# The emulator's environment and the package


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
def package(sam_json: Path) -> Path:
    """The package of all functions but the authorizer, unpacked."""
    return unpacked(sam_json.with_name("deployment.zip"))


@pytest.fixture(scope="module")
def authorizers_package(sam_json: Path) -> Path:
    return unpacked(sam_json.with_name("authorizer.zip"))


def unpacked(archive: Path) -> Path:
    files = archive.with_suffix("")
    shutil.unpack_archive(archive, files)
    return files


def test_the_package_has_only_the_services_that_the_functions_call(package: Path) -> None:
    described = {path.name for path in (package / "botocore" / "data").iterdir() if path.is_dir()}
    assert described == {"apigatewaymanagementapi", "dynamodb"}
    for module in (
        "app.py",
        *(f"chalicelib/page/{name}" for name in ("index.html", "style.css", "script.js")),
        "chalicelib/posting/delivery.py",
        "chalice/app.py",
        "boto3/__init__.py",
    ):
        assert (package / module).exists()
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    assert size < 15_000_000


def test_only_the_authorizers_package_has_the_library_for_tokens(
    package: Path, authorizers_package: Path, template: Template
) -> None:
    both = {path.name for path in package.iterdir()}
    alone = {path.name.partition("-")[0] for path in authorizers_package.iterdir()} - {
        name.partition("-")[0] for name in both
    }
    assert {"jwt", "cryptography", "cffi", "pycparser"} <= alone
    assert all(name.lower().startswith(FOR_TOKENS) for name in alone)
    functions = of_type(template, "AWS::Serverless::Function")
    assert {name: function["CodeUri"] for name, function in functions.items()} == {
        **dict.fromkeys([*FUNCTIONS, PAGE], "./deployment.zip"),
        "Authorize": "./authorizer.zip",
    }


def run_in(package: Path, use: str, **environment: str) -> list[str]:
    """The lines that a program prints with only the package installed, and not writable."""
    code = f"import sys; sys.path.insert(0, sys.argv[1]); {use}"
    used = subprocess.run(
        [sys.executable, "-I", "-B", "-S", "-c", code, str(package)],
        env={"AWS_DEFAULT_REGION": REGION, "AWS_LAMBDA_FUNCTION_NAME": "any"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return used.stdout.splitlines()


def test_the_package_works_with_nothing_else_installed(package: Path) -> None:
    """As in Lambda: without site-packages, with compiled files that are used but not writable."""
    use = (
        "import app;"
        "app.app.websocket_api.session.client('apigatewaymanagementapi');"
        "print(app.STORAGE.table.name, app.__cached__, sep='\\n')"
    )
    settings = {"TABLE": "ChaliceChat", "AWS_EC2_METADATA_DISABLED": "true"}  # no credentials
    *_, table, compiled = run_in(package, use, **settings)
    assert table == "ChaliceChat"
    assert Path(compiled).exists()
    assert compiled.startswith(str(package))


def test_the_authorizers_package_works_with_nothing_else_installed(
    authorizers_package: Path,
) -> None:
    """Its compiled library as well, which Chalice takes from a wheel for Lambda's Linux."""
    use = "import app; from cryptography.hazmat.bindings import _rust; print(_rust.__file__)"
    settings = dict.fromkeys(("TOKEN_ISSUER", "TOKEN_AUDIENCE", "NICKNAME_CLAIM"), "any")
    (library,) = run_in(authorizers_package, use, **settings)
    assert library.startswith(str(authorizers_package))


def test_the_same_code_gives_the_same_bytes_whatever_the_callers_variables_are(
    tmp_path: Path,
) -> None:
    """Twice, installing the requirements and compiling every file each time."""
    clone = clone_to(tmp_path / "clone")
    variables = {
        "PYTHONOPTIMIZE": "2",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "elsewhere"),
        "PYTHONHASHSEED": "1",
        "AWS_PROFILE": "work",
        "AWS_DEFAULT_REGION": "cn-north-1",
        "AWS_CONFIG_FILE": __file__,
    }
    subprocess.run(
        [sys.executable, "-m", "scripts.package", "out"],
        cwd=clone,
        env=os.environ | variables,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(clone / KEPT)
    package_app(clone, clone / "other")
    for name in (*PACKAGES, "sam.json"):
        assert (clone / "out" / name).read_bytes() == (clone / "other" / name).read_bytes()
