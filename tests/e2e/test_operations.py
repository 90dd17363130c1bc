"""An operator's tasks: parameters, monitoring, several stacks, upgrades, roll-backs, deletion.

And least privilege: without any one of the actions that the role allows, something fails.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import websocket
from botocore.exceptions import ClientError

from emulator.emulator import BUCKET, ROOT, STACK, endpoint_of
from scripts import Failure
from scripts.address import chat_of
from tests.e2e import actors
from tests.e2e.actors import Person
from tests.e2e.conftest import Cloud, eventually, new_cloud
from tests.e2e.test_invocations import set_logs_role
from tests.e2e.test_stack import copy_project, departures, logged, nothing_is_left

OLDER = Path(__file__).parent / "older_resources.json"
NUMBERS = count(1)


# Parameters


@pytest.mark.parametrize(
    ("parameter", "why"),
    [
        ("RequestRate=0", "must be a number from 1 to 10000"),
        ("RequestBurst=5001", "must be a number from 1 to 5000"),
        ("TableName=no spaces", "must be 3 to 255 letters"),
        ("LogRetentionDays=2", "value '2' is not in AllowedValues"),
        ("AccessLogs=yes", "value 'yes' is not in AllowedValues"),
        ("WebPage=no", "value 'no' is not in AllowedValues"),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_the_reason(
    account: Cloud,
    deployed: str,
    template: Path,
    capfd: pytest.CaptureFixture[str],
    parameter: str,
    why: str,
) -> None:
    with pytest.raises(Failure):
        account.emulator.deploy_template(template, parameters=[parameter])
    assert f"Parameter '{parameter.split('=')[0]}' {why}" in capfd.readouterr().err
    assert status(account) == "CREATE_COMPLETE"


def test_without_parameters_it_costs_nothing_idle_and_logs_are_kept_for_a_month(
    account: Cloud, deployed: str
) -> None:
    assert monitored(account) == ([], [], [], [])
    (group,) = log_groups(account)
    assert group["retentionInDays"] == 30
    table = account.client("dynamodb").describe_table(TableName="ChaliceChat")["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize(
    ("arguments", "region", "says"),
    [
        ([], "us-east-1", "Which bucket?"),
        (["BUCKET=there-is-none"], "us-east-1", "There is no bucket there-is-none."),
        ([f"BUCKET={BUCKET}"], "", "Which region?"),
        ([f"BUCKET={BUCKET}"], "eu-west-1", "is in us-east-1, and you deploy to eu-west-1"),
    ],
)
def test_make_deploy_reports_a_wrong_setting_before_it_does_anything(
    account: Cloud, deployed: str, arguments: list[str], region: str, says: str
) -> None:
    done = make(account, "deploy", *arguments, AWS_DEFAULT_REGION=region)
    assert done.returncode != 0
    assert says in done.stderr.splitlines()[0]


def test_make_says_why_a_first_deployment_failed_and_how_to_go_on(
    account: Cloud, deployed: str, template: Path
) -> None:
    """Such a stack stays behind, and CloudFormation updates it no more."""
    broken = template.with_name("broken at first.yml")
    broken.write_text(template.read_text().replace("\nResources:\n", BROKEN, 1))
    way_out = (
        "The stack Third is ROLLBACK_COMPLETE. Before you deploy again: "
        "aws cloudformation delete-stack --stack-name Third"
    )
    deploy = ("--stack", "Third", "--template", str(broken), "TableName=Third")
    failed = run(account, sys.executable, "-m", "scripts.deploy", *deploy)
    assert failed.returncode != 0
    reason, after = failed.stderr.splitlines()
    assert reason.startswith("Broken: ")
    assert "there-is-no-such-role" in reason
    assert after == way_out

    again = make(account, "deploy", "STACK=Third", f"BUCKET={BUCKET}")
    assert again.returncode != 0
    assert again.stdout == ""
    assert again.stderr.splitlines()[0] == way_out
    assert make(account, "delete", "STACK=Third").returncode == 0


def test_make_deploy_names_the_table_that_another_stack_has(
    account: Cloud, deployed: str, template: Path
) -> None:
    """Nothing stays behind, so a deployment under another name succeeds."""
    deploy = ("--stack", "Third", "--template", str(template))
    failed = run(account, sys.executable, "-m", "scripts.deploy", *deploy)
    assert failed.returncode != 0
    assert failed.stderr == (
        "ChaliceChatTable: Resource of type 'AWS::DynamoDB::Table' with identifier 'ChaliceChat' "
        "already exists.\n"
    )
    account.emulator.delete("Third")


def test_make_deploy_refuses_a_parameter_that_does_not_exist(
    account: Cloud, deployed: str, template: Path
) -> None:
    deploy = ("--stack", "ChaliceChat", "--template", str(template), "RequestRat=5")
    failed = run(account, sys.executable, "-m", "scripts.deploy", *deploy)
    assert failed.returncode != 0
    assert failed.stderr.startswith("There is no parameter RequestRat; there are: AccessLogs, ")


# Monitoring


def test_monitoring_is_added_to_the_chat_and_taken_away_again(
    account: Cloud, deployed: str
) -> None:
    assert make(account, "monitor").returncode == 0
    topics, subscriptions, alarms, (dashboard,) = monitored(account)
    assert len(topics) == 1
    assert subscriptions == []  # no address was given
    assert len(alarms) == 8
    own = [alarm["Dimensions"] for alarm in alarms if alarm["Namespace"] == "ChaliceChat"]
    assert own == 3 * [[{"Name": "Stack", "Value": STACK}]]

    body = account.client("cloudwatch").get_dashboard(DashboardName=dashboard)["DashboardBody"]
    assert len(json.loads(body)["widgets"]) == 8
    assert "${" not in body
    (api,) = account.client("apigatewayv2").get_apis()["Items"]
    named = [STACK, "ChaliceChat", api["ApiId"], *functions(account)]
    (page,) = (name for name in named if "-APIHandler-" in name)
    named.remove(page)  # its API is on the dashboard, by the stack's name
    assert [name for name in named if f'"{name}"' not in body] == []

    with pytest.raises(ClientError, match="is imported by stack"):  # as docs/operating.md says
        account.emulator.delete()
    account.emulator.delete(f"{STACK}-monitoring")
    assert monitored(account) == ([], [], [], [])
    assert status(account) == "CREATE_COMPLETE"


def test_an_invalid_address_is_refused_with_the_reason(account: Cloud, deployed: str) -> None:
    done = make(account, "monitor", "EMAIL=nobody")
    assert done.returncode != 0
    assert "Parameter 'AlarmEmail' must be one e-mail address, or empty." in done.stderr
    assert monitored(account) == ([], [], [], [])


# Stacks


def test_two_stacks_side_by_side_one_with_everything_but_the_page_switched_on(
    account: Cloud, deployed: str, template: Path
) -> None:
    parameters = ["TableName=SecondTable", "Tracing=on", "AccessLogs=on", "LogRetentionDays=7"]
    parameters += ["WebPage=off"]
    set_logs_role(account)
    account.emulator.deploy_template(template, stack="Second", parameters=parameters)
    assert make(account, "monitor", "STACK=Second", "EMAIL=you@example.com").returncode == 0
    second = account.emulator.url("Second")

    with Person(deployed) as here, Person(second) as there:
        for person in (here, there):  # the same nickname and room in each
            person.says("John")
            person.hears("Using nickname: John\nType /help for list of commands.")
            person.says("/join tea")
            person.hears('Joined chat room "tea"')
        here.says("Hi")
        here.hears("John: Hi")
        there.hears_nothing()

    stacks = {"ChaliceChat": STACK, "SecondTable": "Second"}
    tables = account.client("dynamodb").list_tables()["TableNames"]
    assert set(tables) == stacks.keys()
    for function in account.client("lambda").list_functions()["Functions"]:
        variables = function["Environment"]["Variables"]
        if "-APIHandler-" not in function["FunctionName"]:
            assert stacks[variables["TABLE"]] == variables["STACK"]
        assert function["FunctionName"].startswith(variables["STACK"])
        traced = "Active" if variables["STACK"] == "Second" else "PassThrough"
        assert function["TracingConfig"]["Mode"] == traced
    (page,) = account.client("apigateway").get_rest_apis()["items"]
    assert (
        account.emulator.page_url() == f"http://{endpoint_of(account.emulator.port, page['id'])}/"
    )
    printed = make(account, "url", f"STACK={STACK}").stdout
    assert printed == f"{account.emulator.page_url()}\n{deployed}\n"
    assert account.emulator.page_url("Second") is None
    assert [name for name in functions(account) if name.startswith("Second-APIHandler")] == []
    assert make(account, "url", "STACK=Second").stdout == f"{second}\n"
    retained = [group["retentionInDays"] for group in log_groups(account)]
    assert sorted(retained) == [7, 7, 30]
    _, subscriptions, _, dashboards = monitored(account)
    assert subscriptions == [("email", "you@example.com")]
    assert dashboards == ["Second-us-east-1"]

    eventually(lambda: rows(account, "SecondTable") == [])
    assert make(account, "delete", "STACK=Second").returncode == 0
    assert monitored(account) == ([], [], [], [])
    assert account.client("dynamodb").list_tables()["TableNames"] == ["ChaliceChat"]


def test_a_failed_upgrade_is_rolled_back_and_nobody_notices(
    account: Cloud, deployed: str, template: Path
) -> None:
    broken = template.with_name("broken.yml")
    broken.write_text(template.read_text().replace("\nResources:\n", BROKEN, 1))
    with Person(deployed) as john:
        john.says("John")
        john.hears("Using nickname: John\nType /help for list of commands.")
        with pytest.raises(Failure, match=r"^Broken: .*there-is-no-such-role"):
            account.emulator.deploy_template(broken, parameters=["LogRetentionDays=7"])
        assert status(account) == "UPDATE_ROLLBACK_COMPLETE"
        assert retention(account) == 30
        john.says("/nick")
        john.hears("Current nickname: John")

    account.emulator.deploy_template(template, parameters=["LogRetentionDays=7"])
    assert status(account) == "UPDATE_COMPLETE"
    assert retention(account) == 7


BROKEN = """
Resources:
  Broken:
    Type: AWS::IAM::Policy
    DependsOn: WebsocketAPIStage
    Properties:
      PolicyName: Broken
      Roles: [there-is-no-such-role]
      PolicyDocument:
        Version: '2012-10-17'
        Statement: [{Effect: Deny, Action: 's3:*', Resource: '*'}]
"""


def test_people_stay_when_0_1_0_is_upgraded_taken_back_and_upgraded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/operating.md says. Nobody has to reconnect.

    The older stack has the template of 0.1.0 (without provisioned capacity, alarms over several
    metrics and widgets), and this code with the claims of 0.1.0: only names that differ in case are
    the same.
    """
    project = copy_project(tmp_path / "project")
    shutil.copy(OLDER, project / "resources.json")
    app = project / "app.py"
    app.write_text(app.read_text().partition("@app.route")[0] + OLDER_CODE)
    with new_cloud(tmp_path) as cloud:
        older = cloud.emulator.package(project).rename(tmp_path / "older.yml")
        newer = cloud.emulator.package()
        for name, value in cloud.emulator.environment.items():
            monkeypatch.setenv(name, value)

        def deploy(template: Path, *parameters: str) -> subprocess.CompletedProcess[str]:
            what = ("--stack", STACK, "--template", str(template), *parameters)
            return run(cloud, sys.executable, "-m", "scripts.deploy", *what)

        assert deploy(older, "AlarmEmail=you@example.com").returncode == 0
        has_what_0_1_0_has(cloud)
        url, table = cloud.emulator.url(), the_table(cloud)
        (logs,) = log_groups(cloud)
        with Person(url) as john, Person(url) as jim:
            people = {"John": john, "Jim": jim}
            for name, person in people.items():
                enters_tea(person, name)
            john.hears("Jim joined room.")
            before = rows(cloud, "ChaliceChat")

            assert deploy(newer).returncode == 0
            has_nothing_of_0_1_0(cloud)
            assert monitored(cloud) == ([], [], [], [])
            assert rows(cloud, "ChaliceChat") == before
            all_hear_each_other(people)
            with Person(url) as jack:
                jack.says("john")
                jack.hears("Nickname john is already in use.")
            assert make(cloud, "monitor", "EMAIL=you@example.com").returncode == 0
            assert monitored(cloud)[1] == [("email", "you@example.com")]
            mia = Person(url)
            enters_tea(mia, "Mia")
            for person in people.values():
                person.hears("Mia joined room.")

            # Back
            refused = deploy(older, "Monitoring=off")
            assert refused.returncode != 0
            assert f"cannot be deleted as it is in use by {STACK}-monitoring" in refused.stderr
            assert status(cloud) == "UPDATE_ROLLBACK_COMPLETE"
            has_nothing_of_0_1_0(cloud)
            all_hear_each_other(people | {"Mia": mia})
            cloud.emulator.delete(f"{STACK}-monitoring")
            before = rows(cloud, "ChaliceChat")
            assert deploy(older, "AlarmEmail=you@example.com").returncode == 0
            has_what_0_1_0_has(cloud)
            assert rows(cloud, "ChaliceChat") == before
            all_hear_each_other(people | {"Mia": mia})
            mia.leaves()  # her claim stays: the older code looks for another
            for person in people.values():
                person.hears("Mia left room.")

            # Forward again
            assert deploy(newer).returncode == 0
            has_nothing_of_0_1_0(cloud)
            all_hear_each_other(people)
            with Person(url) as mia:
                enters_tea(mia, "Mia")
                for person in people.values():
                    person.hears("Mia joined room.")
                john.leaves()
                for person in (jim, mia):
                    person.hears("John left room.")
                jim.leaves()
                mia.hears("Jim left room.")
            assert cloud.emulator.url() == url
            assert the_table(cloud) == table
            (logs_now,) = log_groups(cloud)
            assert logs_now["creationTime"] == logs["creationTime"]
        eventually(lambda: departures(cloud) == 5)
        assert [row["SK"]["S"] for row in rows(cloud, "ChaliceChat")] == ["taken_jim"]  # expires

        assert make(cloud, "delete").returncode == 0
        assert log_groups(cloud) == []
        nothing_is_left(cloud)


OLDER_CODE = """
@app.lambda_function(name="fan_out")
def fan_out(event: dict[str, Any], context: Any) -> None:
    pass


from chalicelib.text import names

names.claim = str.casefold
"""


def has_what_0_1_0_has(account: Cloud) -> None:
    """An alarm by e-mail, the function for large rooms; no page, no exports, no version."""
    topics, subscriptions, alarms, dashboards = monitored(account)
    assert (len(topics), len(alarms), dashboards) == (1, 4, [f"{STACK}-us-east-1"])
    assert subscriptions == [("email", "you@example.com")]
    assert len([name for name in functions(account) if "-FanOut-" in name]) == 1
    assert "sqs:SendMessage" in str(policies(account))
    assert account.emulator.page_url() is None
    assert exported(account) == set()
    assert deployed_version() is None


def has_nothing_of_0_1_0(account: Cloud) -> None:
    """It has the page, the exports for the monitoring stack, and the version."""
    assert [name for name in functions(account) if "-FanOut-" in name] == []
    assert account.client("sqs").list_queues().get("QueueUrls", []) == []
    assert "sqs:" not in str(policies(account))
    assert account.emulator.page_url()
    assert exported(account) >= {"Table", "WebsocketAPI"}
    assert deployed_version()


def enters_tea(person: Person, name: str) -> None:
    person.says(name)
    person.hears(f"Using nickname: {name}\nType /help for list of commands.")
    person.says("/join tea")
    person.hears('Joined chat room "tea"')


def all_hear_each_other(people: dict[str, Person]) -> None:
    for name, person in people.items():
        person.says("Hi")
        for other in people.values():
            other.hears(f"{name}: Hi")


def deployed_version() -> str | None:
    return chat_of(argparse.Namespace(stack=STACK, url=None)).outputs.get("Version")


def the_table(account: Cloud) -> tuple[str, str]:
    table = account.client("dynamodb").describe_table(TableName="ChaliceChat")["Table"]
    return table["TableId"], str(table["CreationDateTime"])


# Least privilege


def test_nothing_is_allowed_that_is_not_needed(account: Cloud, deployed: str) -> None:
    """Without each action of each statement of each role in turn, something fails."""
    everything_works(account, deployed)
    already_refused, shown = refusals(account), set()
    for role, policy, document in policies(account):
        for statement in document["Statement"]:
            for action in listed(statement["Action"]):
                with denied(account, role, policy, statement["Sid"], action):
                    assert not works(account, deployed), f"{action} of {statement['Sid']}"
                shown.add(statement["Sid"])
    assert refusals(account) > already_refused  # they are logged, so the next line can notice them
    everything_works(account, deployed)
    assert shown >= {"PostToConnections", "UseTable", "ReadIndex"}


def everything_works(account: Cloud, url: str) -> None:
    """Everything that needs a permission works, and no refusal is logged."""
    already_refused = refusals(account)
    number = next(NUMBERS)
    with Person(url) as john:
        with Person(url) as jenny, Person(url) as jack:
            people = {f"John{number}": john, f"Jenny{number}": jenny, f"Jack{number}": jack}
            for n, (name, person) in enumerate(people.items()):
                person.says(name)
                person.hears(f"Using nickname: {name}\nType /help for list of commands.")
                person.says(f"/join tea{number}")
                person.hears(f'Joined chat room "tea{number}"')
                for other in list(people.values())[:n]:
                    other.hears(f"{name} joined room.")
            john.says("Hi")
            for person in people.values():
                person.hears(f"John{number}: Hi")
            jack.says(f"/nick Jake{number}")
            jack.hears(f"Nickname is: Jake{number}")
            for person in (john, jenny):
                person.hears(f"Jack{number} is now known as Jake{number}.")
            jack.leaves()
            for person in (john, jenny):
                person.hears(f"Jake{number} left room.")
        john.hears(f"Jenny{number} left room.")
        john.says("/ls")
        john.hears(f"John{number}")
    for address in pages(account):
        with urllib.request.urlopen(address) as page:
            assert page.read()
    assert refusals(account) == already_refused


def refusals(account: Cloud) -> int:
    """How often the functions have logged that they lack a permission."""
    return sum("AccessDenied" in line for line in logged(account))


def pages(account: Cloud) -> list[str]:
    """The addresses of all routes that can be opened without parameters."""
    client, page_url = account.client("apigateway"), account.emulator.page_url()
    (api,) = client.get_rest_apis()["items"]
    found = [
        f"{page_url}{route['path'].removeprefix('/')}"
        for route in client.get_resources(restApiId=api["id"])["items"]
        if "GET" in route.get("resourceMethods", {}) and "{" not in route["path"]
    ]
    assert page_url in found
    return found


def works(account: Cloud, url: str) -> bool:
    patience, actors.PATIENCE = actors.PATIENCE, 3.0  # refusals come at once
    try:
        everything_works(account, url)
    except (AssertionError, websocket.WebSocketException, queue.Empty, urllib.error.HTTPError):
        return False
    finally:
        actors.PATIENCE = patience
        eventually(lambda: is_quiet(account))  # the next round finds no refusal of this one
    return True


def is_quiet(account: Cloud) -> bool:
    """Whether the departures of all who have connected are handled and logged."""
    lines = logged(account)

    def ended(route: str, message: str) -> int:
        wanted = (f'"message":"{message}"', f'"route":"{route}"')
        return len([line for line in lines if all(part in line for part in wanted)])

    connected = ended("$connect", "done") - ended("$connect", "failed")
    return ended("$disconnect", "done") == connected


def policies(account: Cloud) -> list[tuple[str, str, dict[str, Any]]]:
    """Of each role in the account, with its name and theirs."""
    iam = account.client("iam")
    return [
        (role, name, iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        for role in [each["RoleName"] for each in iam.list_roles()["Roles"]]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]


@contextmanager
def denied(account: Cloud, role: str, policy: str, sid: str, action: str) -> Iterator[None]:
    iam = account.client("iam")
    names = {"RoleName": role, "PolicyName": policy}
    document = iam.get_role_policy(**names)["PolicyDocument"]
    less = json.loads(json.dumps(document))
    (statement,) = (each for each in less["Statement"] if each["Sid"] == sid)
    others = [each for each in listed(statement["Action"]) if each != action]
    statement["Action"] = others or "sts:GetCallerIdentity"  # allowed to everybody anyway
    iam.put_role_policy(**names, PolicyDocument=json.dumps(less))
    try:
        yield
    finally:
        iam.put_role_policy(**names, PolicyDocument=json.dumps(document))


def make(account: Cloud, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(account, "make", "--silent", *arguments, **environment)


def run(account: Cloud, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=account.emulator.environment | environment,
        capture_output=True,
        text=True,
    )


# The account's resources


def functions(account: Cloud) -> list[str]:
    found = account.client("lambda").list_functions()["Functions"]
    return [function["FunctionName"] for function in found]


def monitored(
    account: Cloud,
) -> tuple[list[str], list[tuple[str, str]], list[dict[str, Any]], list[str]]:
    """The topics, subscriptions, alarms and dashboards of an account."""
    sns, cloudwatch = account.client("sns"), account.client("cloudwatch")
    return (
        [topic["TopicArn"] for topic in sns.list_topics()["Topics"]],
        [
            (each["Protocol"], each["Endpoint"])
            for each in sns.list_subscriptions()["Subscriptions"]
        ],
        cloudwatch.describe_alarms()["MetricAlarms"],
        [each["DashboardName"] for each in cloudwatch.list_dashboards()["DashboardEntries"]],
    )


def exported(account: Cloud) -> set[str]:
    """The names that the chat's stack exports, without that of the stack."""
    (stack,) = account.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    names = [output.get("ExportName", "") for output in stack["Outputs"]]
    return {name.removeprefix(f"{STACK}-") for name in names if name}


def retention(account: Cloud) -> int:
    (group,) = log_groups(account)
    days: int = group["retentionInDays"]
    return days


def status(account: Cloud) -> str:
    (stack,) = account.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    found: str = stack["StackStatus"]
    return found


def log_groups(account: Cloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = account.client("logs").describe_log_groups()["logGroups"]
    return sorted(found, key=lambda group: str(group["logGroupName"]))


def rows(account: Cloud, table: str) -> list[dict[str, Any]]:
    found = account.client("dynamodb").scan(TableName=table, ConsistentRead=True)["Items"]
    return sorted(found, key=lambda row: (row["PK"]["S"], row["SK"]["S"]))


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
