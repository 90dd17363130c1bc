"""What CloudFormation refuses, the emulator refuses too, with the same words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from scripts import Failure
from tests.e2e.conftest import Cloud, eventually

TOPIC = {"Type": "AWS::SNS::Topic"}

Template = dict[str, Any]
Deploy = Callable[..., str]


@pytest.fixture
def deploy(account: Cloud, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Deploy:
    """Deploys a template with the AWS CLI, and returns the reason if it is refused."""

    def deploy(template: Template, *parameters: str, stack: str = "Refused") -> str:
        file = tmp_path / "template.json"
        file.write_text(json.dumps(template))
        try:
            account.emulator.deploy_template(file, stack=stack, parameters=parameters)
        except Failure:
            return capfd.readouterr().err
        return ""

    return deploy


# References


def with_a_page(page: Template, **others: Any) -> Template:
    """A template whose topic `Page` has a condition, and another resource."""
    return {
        "Parameters": {"WebPage": {"Type": "String", "Default": "off"}},
        "Conditions": {"HasPage": {"Fn::Equals": [{"Ref": "WebPage"}, "on"]}},
        "Resources": {
            "Page": TOPIC | {"Condition": "HasPage"},
            "Other": {"Type": "AWS::SQS::Queue", **page},
        },
        **others,
    }


def named(name: Any) -> Template:
    return {"Properties": {"QueueName": name}}


MISSING = [
    pytest.param({"DependsOn": "Page"}, id="DependsOn"),
    pytest.param({"DependsOn": ["Page"]}, id="DependsOn in a list"),
    pytest.param(named({"Ref": "Page"}), id="Ref"),
    pytest.param(named({"Fn::GetAtt": ["Page", "TopicName"]}), id="GetAtt"),
    pytest.param(named({"Fn::GetAtt": "Page.TopicName"}), id="GetAtt with a dot"),
    pytest.param(named({"Fn::Sub": "${Page.TopicName}-of-it"}), id="Sub"),
    pytest.param(named({"Fn::Sub": ["${It}", {"It": {"Ref": "Page"}}]}), id="Sub with a map"),
    pytest.param(named({"Fn::If": ["HasPage", "a", {"Ref": "Page"}]}), id="If, the wrong way"),
]


@pytest.mark.parametrize("reference", MISSING)
def test_a_reference_to_what_a_condition_leaves_out_is_refused(
    account: Cloud, reference: Template
) -> None:
    reason = "Template format error: Unresolved resource dependencies [Page] in the Resources block"
    assert reason in refusal(account, with_a_page(reference))


def test_the_command_says_so_and_nothing_is_created(account: Cloud, deploy: Deploy) -> None:
    said = deploy(with_a_page({"DependsOn": "Page"}))
    assert "Unresolved resource dependencies [Page] in the Resources block of the template" in said
    assert stacks(account) == []


def test_the_same_reference_is_taken_where_the_condition_holds(
    account: Cloud, deploy: Deploy
) -> None:
    assert deploy(with_a_page({"DependsOn": "Page"}), "WebPage=on") == ""
    account.emulator.delete("Refused")
    chosen = named({"Fn::If": ["HasPage", {"Fn::GetAtt": ["Page", "TopicName"]}, "no-page"]})
    assert deploy(with_a_page(chosen)) == ""
    account.emulator.delete("Refused")


def test_names_that_lead_nowhere_are_refused(account: Cloud) -> None:
    """Even in a branch that is not taken, and by ValidateTemplate."""
    nowhere = {"Fn::If": ["HasPage", {"Fn::Sub": "${Nowhere}-${AWS::Stage}"}, "no-page"]}
    template = with_a_page(named(nowhere))
    reason = "Unresolved resource dependencies [AWS::Stage, Nowhere] in the Resources block"
    assert reason in refusal(account, template)
    with pytest.raises(ClientError, match="AWS::Stage, Nowhere"):
        account.client("cloudformation").validate_template(TemplateBody=json.dumps(template))


def test_outputs_may_refer_to_what_is_there(account: Cloud, deploy: Deploy) -> None:
    shown = {"Value": {"Ref": "Page"}}
    reason = "Unresolved resource dependencies [Page] in the Outputs block of the template"
    assert reason in refusal(account, with_a_page({}, Outputs={"Page": shown}))
    assert deploy(with_a_page({}, Outputs={"Page": shown | {"Condition": "HasPage"}})) == ""
    account.emulator.delete("Refused")


@pytest.mark.parametrize(
    ("resources", "circle"),
    [
        ({"A": TOPIC | {"DependsOn": "B"}, "B": TOPIC | {"DependsOn": "A"}}, "[A, B]"),
        ({"A": TOPIC | {"Properties": {"DisplayName": {"Ref": "A"}}}}, "[A]"),
    ],
)
def test_circles_are_refused(account: Cloud, resources: Template, circle: str) -> None:
    after = {"After": TOPIC | {"DependsOn": "A"}}  # not of the circle
    reason = f"Circular dependency between resources: {circle}"
    assert reason in refusal(account, {"Resources": resources | after})


# Names


def fixed(kind: str, name: str, **properties: Any) -> Template:
    key = f"{kind.split('::')[-1]}Name"
    return {"Resources": {"It": {"Type": kind, "Properties": {key: name} | properties}}}


KEYS = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
}
TABLE = fixed("AWS::DynamoDB::Table", "People", **KEYS)
TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "lambda.amazonaws.com"},
    "Action": "sts:AssumeRole",
}
POLICY = {"Version": "2012-10-17", "Statement": [TRUST]}
NAMED = [
    TABLE,
    fixed("AWS::Logs::LogGroup", "logs"),
    fixed("AWS::SQS::Queue", "letters"),
    fixed("AWS::SNS::Topic", "alarms"),
    fixed("AWS::CloudWatch::Dashboard", "board", DashboardBody="{}"),
    fixed("AWS::IAM::Role", "role", AssumeRolePolicyDocument=POLICY),
]


@pytest.fixture
def first(account: Cloud) -> Iterator[Callable[[Template], None]]:
    """Creates the stack `First`, which is deleted after the test."""
    client = account.client("cloudformation")

    def create(template: Template) -> None:
        client.create_stack(
            StackName="First",
            TemplateBody=json.dumps(template),
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        client.get_waiter("stack_create_complete").wait(
            StackName="First", WaiterConfig={"Delay": 1}
        )

    yield create
    account.emulator.delete("First")


@pytest.mark.parametrize("template", NAMED, ids=lambda each: each["Resources"]["It"]["Type"])
def test_a_second_stack_cannot_have_a_name_of_the_first(
    account: Cloud, first: Callable[[Template], None], template: Template
) -> None:
    first(template)
    assert "[AWS::EarlyValidation::ResourceExistenceCheck]" in second(account, template)
    client = account.client("cloudformation")
    (event,) = client.describe_events(StackName="Second")["OperationEvents"]
    it = template["Resources"]["It"]
    name = it["Properties"][f"{it['Type'].split('::')[-1]}Name"]
    assert event["ValidationStatusReason"] == (
        f"Resource of type '{it['Type']}' with identifier '{name}' already exists."
    )
    client.delete_stack(StackName="Second")


def second(account: Cloud, template: Template) -> str:
    """The reason for which the change set of the stack `Second` fails."""
    client = account.client("cloudformation")
    client.create_change_set(
        StackName="Second",
        ChangeSetName="second",
        ChangeSetType="CREATE",
        TemplateBody=json.dumps(template),
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    made = client.describe_change_set(StackName="Second", ChangeSetName="second")
    assert (made["Status"], made["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    return str(made["StatusReason"])


def test_the_table_of_the_first_stack_survives_the_second(
    account: Cloud, first: Callable[[Template], None], deploy: Deploy
) -> None:
    tables = account.client("dynamodb")
    first(TABLE)
    tables.put_item(TableName="People", Item={"PK": {"S": "John"}})
    said = deploy(TABLE, stack="Second")
    assert "Failed to create the changeset" in said
    assert "[AWS::EarlyValidation::ResourceExistenceCheck]" in said
    other = fixed("AWS::DynamoDB::Table", "Others", **KEYS)
    assert deploy(other, stack="Second") == ""  # what failed is not in the way

    said = deploy(TABLE, stack="Second")  # an update, to a taken name
    assert "[AWS::EarlyValidation::ResourceExistenceCheck]" in said
    account.emulator.delete("Second")
    assert tables.scan(TableName="People")["Count"] == 1
    assert tables.list_tables()["TableNames"] == ["People"]


def test_a_stack_that_is_created_with_a_taken_name_is_rolled_back(
    account: Cloud, first: Callable[[Template], None]
) -> None:
    """By CreateStack, which has no change set that could fail."""
    client = account.client("cloudformation")
    first(TABLE)
    client.create_stack(StackName="Second", TemplateBody=json.dumps(TABLE))
    eventually(lambda: status(account, "Second") == "ROLLBACK_COMPLETE")
    account.emulator.delete("Second")
    assert account.client("dynamodb").list_tables()["TableNames"] == ["People"]


def test_a_table_that_no_stack_owns_is_not_taken_over(account: Cloud, deploy: Deploy) -> None:
    table = TABLE["Resources"]["It"]["Properties"]
    account.client("dynamodb").create_table(**table)
    said = deploy(TABLE)
    assert "[AWS::EarlyValidation::ResourceExistenceCheck]" in said
    account.emulator.delete("Refused")
    account.client("dynamodb").delete_table(TableName="People")


def test_a_stack_that_failed_at_first_can_only_be_deleted(
    account: Cloud, first: Callable[[Template], None], deploy: Deploy
) -> None:
    client = account.client("cloudformation")
    exporting = {"Value": "1", "Export": {"Name": "shared"}}
    first({"Resources": {"It": TOPIC}, "Outputs": {"It": exporting}})
    second = {"Resources": {"It": TOPIC}, "Outputs": {"Mine": exporting}}
    assert "Failed to create/update the stack" in deploy(second, stack="Second")
    events = client.describe_stack_events(StackName="Second")["StackEvents"]
    reason = "Export with name shared is already exported by stack First"
    assert reason in [event.get("ResourceStatusReason") for event in events]

    del second["Outputs"]
    said = deploy(second, stack="Second")
    assert "is in ROLLBACK_COMPLETE state and can not be updated." in said
    account.emulator.delete("Second")
    assert deploy(second, stack="Second") == ""
    account.emulator.delete("Second")


def test_an_export_that_is_in_use_stays_as_it_is(
    account: Cloud, first: Callable[[Template], None], deploy: Deploy
) -> None:
    client = account.client("cloudformation")
    exported = {"Value": "1", "Export": {"Name": "shared"}}
    first({"Resources": {"It": TOPIC}, "Outputs": {"It": exported}})
    importing = {"Properties": {"DisplayName": {"Fn::ImportValue": "shared"}}}
    assert deploy({"Resources": {"It": TOPIC | importing}}, stack="Second") == ""

    more = {"It": TOPIC, "More": TOPIC}
    for outputs, change in ({"It": exported | {"Value": "2"}}, "updated"), ({}, "deleted"):
        deploy({"Resources": more, "Outputs": outputs}, stack="First")
        events = client.describe_stack_events(StackName="First")["StackEvents"]
        reasons = [event.get("ResourceStatusReason") for event in events]
        assert f"Export shared cannot be {change} as it is in use by Second" in reasons
    account.emulator.delete("Second")
    assert deploy({"Resources": more}, stack="First") == ""
    assert client.list_exports()["Exports"] == []


def refusal(account: Cloud, template: Template) -> str:
    """The answer to CreateChangeSet, which creates no stack."""
    with pytest.raises(ClientError) as refused:
        account.client("cloudformation").create_change_set(
            StackName="Refused",
            ChangeSetName="refused",
            ChangeSetType="CREATE",
            TemplateBody=json.dumps(template),
        )
    assert stacks(account) == []
    return str(refused.value)


# What the services refuse


def api(**stage: Any) -> Template:
    properties = {"ApiId": {"Ref": "Api"}, "StageName": "api", "AutoDeploy": True} | stage
    return {
        "Api": {
            "Type": "AWS::ApiGatewayV2::Api",
            "Properties": {
                "Name": "chat",
                "ProtocolType": "WEBSOCKET",
                "RouteSelectionExpression": "$request.body.action",
            },
        },
        "Stage": {"Type": "AWS::ApiGatewayV2::Stage", "Properties": properties},
    }


def function_of(service: str, **resources: Any) -> Template:
    """A function whose role is for a service, and may do nothing."""
    trust = json.loads(json.dumps(POLICY).replace("lambda.amazonaws.com", service))
    return {
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}},
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Code": {"ZipFile": "def handler(event, context): pass"},
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Runtime": "python3.11",
            },
        },
        **resources,
    }


def test_a_second_function_cannot_have_the_name_of_the_first(
    account: Cloud, first: Callable[[Template], None]
) -> None:
    resources = function_of("lambda.amazonaws.com")
    resources["Function"]["Properties"]["FunctionName"] = "function"
    first({"Resources": resources})
    assert "ResourceExistenceCheck" in second(account, {"Resources": resources})


RETRIES = {
    "Queue": {"Type": "AWS::SQS::Queue"},
    "Retries": {
        "Type": "AWS::Lambda::EventInvokeConfig",
        "Properties": {
            "FunctionName": {"Ref": "Function"},
            "Qualifier": "$LATEST",
            "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["Queue", "Arn"]}}},
        },
    },
}
REFUSED = [
    (
        api(RouteSettings={"$default": {"ThrottlingRateLimit": 1}}),
        "Unable to find Route by key $default within the provided RouteSettings",
    ),
    (
        api(DeploymentId="abcdef"),
        "Deployment ID cannot be set on this stage because AutoDeploy is enabled",
    ),
    (
        api(AccessLogSettings={"DestinationArn": "arn:aws:logs:a:b:c", "Format": "$context.error"}),
        "CloudWatch Logs role ARN must be set in account settings to enable logging",
    ),
    (
        function_of("ec2.amazonaws.com"),
        "The role defined for the function cannot be assumed by Lambda.",
    ),
    (
        function_of("lambda.amazonaws.com", **RETRIES),
        "The function's execution role does not have permissions to call SendMessage on arn:aws:",
    ),
]


@pytest.mark.parametrize(("resources", "reason"), REFUSED)
def test_a_resource_that_its_service_refuses_rolls_the_stack_back(
    account: Cloud, resources: Template, reason: str
) -> None:
    client = account.client("cloudformation")
    client.create_stack(
        StackName="Refused",
        TemplateBody=json.dumps({"Resources": resources}),
        Capabilities=["CAPABILITY_IAM"],
    )
    eventually(lambda: status(account, "Refused") == "ROLLBACK_COMPLETE")
    events = client.describe_stack_events(StackName="Refused")["StackEvents"]
    (failure,) = (each for each in events if each["ResourceStatus"] == "CREATE_FAILED")
    assert reason in failure["ResourceStatusReason"]
    account.emulator.delete("Refused")


# Conditions


def test_a_changed_condition_is_a_change(account: Cloud, deploy: Deploy) -> None:
    """The same template with another parameter, which nothing but the condition uses."""
    template = with_a_page({}, Outputs={"Page": {"Value": "on", "Condition": "HasPage"}})
    for page in ("off", "on", "off"):
        assert deploy(template, f"WebPage={page}") == ""
        topics = account.client("sns").list_topics()["Topics"]
        client = account.client("cloudformation")
        (stack,) = client.describe_stacks(StackName="Refused")["Stacks"]
        assert (len(topics), len(stack.get("Outputs", []))) == {"on": (1, 1), "off": (0, 0)}[page]
    account.emulator.delete("Refused")


def test_the_page_is_gone_when_it_is_switched_off_and_comes_back(account: Cloud) -> None:
    template = account.emulator.package()
    for page in ("on", "off", "on"):
        account.emulator.deploy_template(template, parameters=[f"WebPage={page}"])
        functions = account.client("lambda").list_functions()["Functions"]
        handlers = [each for each in functions if "-APIHandler-" in each["FunctionName"]]
        apis = account.client("apigateway").get_rest_apis()["items"]
        expected = 1 if page == "on" else 0
        assert (len(handlers), len(apis)) == (expected, expected)
        assert bool(account.emulator.page_url()) == bool(expected)
    account.emulator.delete()


def status(account: Cloud, stack: str) -> str:
    described = account.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return str(described[0]["StackStatus"])


def stacks(account: Cloud) -> list[str]:
    listed = account.client("cloudformation").describe_stacks()["Stacks"]
    return [stack["StackName"] for stack in listed]
