"""What CloudFormation refuses, the emulator refuses too, with the same words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from scripts.emulator import Failure
from tests.e2e.conftest import Cloud, new_cloud

TOPIC = {"Type": "AWS::SNS::Topic"}
NUMBERS = count(1)

Template = dict[str, Any]
Deploy = Callable[..., str]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An account for the tests of this file."""
    with new_cloud(tmp_path_factory.mktemp("account")) as cloud:
        yield cloud


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


def stacks(account: Cloud) -> list[str]:
    listed = account.client("cloudformation").describe_stacks()["Stacks"]
    return [stack["StackName"] for stack in listed]
