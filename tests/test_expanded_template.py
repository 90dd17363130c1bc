"""The template as CloudFormation sees it: expanded by SAM, under all combinations of its switches.

CloudFormation refuses a reference to a resource that a condition leaves out, and a circle, before
it creates anything (AWS CloudFormation User Guide, *Condition functions* and *DependsOn*).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from emulator.emulator import ROOT
from scripts.expand import expand
from tests.test_template import package_app

pytestmark = pytest.mark.e2e

SIGN_IN = {"TokenIssuer": "https://example.com", "TokenAudience": "chat", "SignInClient": "chat"}
SWITCHES: dict[str, dict[str, str]] = {
    "sign-in": SIGN_IN,
    "no page": {"WebPage": "off"},
    "access logs": {"AccessLogs": "on"},
    "traces": {"Tracing": "on"},
}
COMBINATIONS = [chosen for n in range(len(SWITCHES) + 1) for chosen in combinations(SWITCHES, n)]


class Stack:
    """What CloudFormation creates of an expanded template: only that whose condition holds."""

    def __init__(self, template: dict[str, Any], parameters: Mapping[str, str]) -> None:
        declared = template["Parameters"]
        self.parameters = {name: declared[name]["Default"] for name in declared} | dict(parameters)
        self.conditions: dict[str, bool] = {}
        for name, condition in template["Conditions"].items():
            self.conditions[name] = self.holds(condition)
        self.resources = self.existing(template["Resources"])
        self.outputs = self.existing(template["Outputs"])
        self.broken_rules = [
            assertion["AssertDescription"]
            for rule in template["Rules"].values()
            if self.holds(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self.holds(assertion["Assert"])
        ]

    def holds(self, condition: Any) -> bool:
        match condition:
            case {"Fn::Equals": [one, other]}:
                return bool(self.value(one) == self.value(other))
            case {"Fn::Not": [inner]}:
                return not self.holds(inner)
        raise ValueError(f"{condition} is not evaluated here yet")

    def value(self, value: Any) -> Any:
        """Conditions and rules may refer to nothing but parameters."""
        return self.parameters[value["Ref"]] if isinstance(value, dict) else value

    def existing(self, part: dict[str, Any]) -> dict[str, Any]:
        return {
            name: entry
            for name, entry in part.items()
            if "Condition" not in entry or self.conditions[entry["Condition"]]
        }

    def needs(self, name: str) -> set[str]:
        """What a resource refers to or depends on, without parameters."""
        resource = self.resources[name]
        listed = resource.get("DependsOn", [])
        depends_on = {listed} if isinstance(listed, str) else set(listed)
        return depends_on | self.references(resource.get("Properties", {}))

    def references(self, value: Any) -> set[str]:
        """The names that a value refers to, without parameters; of `Fn::If` in the branch taken."""
        return {
            name
            for name in self.names(value)
            if name not in self.parameters and not name.startswith("AWS::")
        }

    def names(self, value: Any) -> Iterator[str]:
        match value:
            case {"Ref": str(name)}:
                yield name
            case {"Fn::GetAtt": str(path)} | {"Fn::GetAtt": [str(path), *_]}:
                yield path.partition(".")[0]
            case {"Fn::Sub": str(text)}:
                yield from names_in(text)
            case {"Fn::Sub": [str(text), values]}:
                yield from names_in(text) - values.keys()
                yield from self.names(values)
            case {"Fn::If": [condition, yes, no]}:
                yield from self.names(yes if self.conditions[condition] else no)
            case dict():
                yield from self.names(list(value.values()))
            case list():
                for inner in value:
                    yield from self.names(inner)

    def created_before(self, name: str) -> set[str]:
        """All that CloudFormation creates or updates before a resource."""
        before: set[str] = set()
        waiting = [name]
        while waiting:
            new = self.needs(waiting.pop()) - before
            before |= new
            waiting += new
        return before


def names_in(text: str) -> set[str]:
    """The names in a text of `Fn::Sub`, where `${!literal}` is none."""
    return {path.partition(".")[0] for path in re.findall(r"\$\{([^!}][^}]*)\}", text)}


@pytest.fixture(scope="module")
def sam_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_app(ROOT, tmp_path_factory.mktemp("out"))


def stack(sam_json: Path, parameters: Mapping[str, str]) -> Stack:
    return Stack(expand(sam_json, parameters), parameters)


def test_expanding_ignores_the_callers_profile(
    sam_json: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of nobody")
    assert expand(sam_json, {})


@pytest.fixture(scope="module", params=COMBINATIONS, ids=lambda on: ", ".join(on) or "defaults")
def any_stack(sam_json: Path, request: pytest.FixtureRequest) -> Stack:
    chosen = [SWITCHES[name] for name in request.param]
    return stack(sam_json, {name: value for switch in chosen for name, value in switch.items()})


def test_every_reference_leads_to_what_exists(any_stack: Stack) -> None:
    wanted = {name: any_stack.needs(name) for name in any_stack.resources}
    wanted |= {
        f"output {name}": any_stack.references(output) for name, output in any_stack.outputs.items()
    }
    existing = any_stack.resources.keys()
    assert {name: needs - existing for name, needs in wanted.items() if needs - existing} == {}
    assert len(wanted["WebsocketConnect"]) > 2  # it does follow references


def test_no_resource_waits_for_itself(any_stack: Stack) -> None:
    graph = {name: any_stack.needs(name) for name in any_stack.resources}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_parameters_keep_the_rules(any_stack: Stack) -> None:
    assert any_stack.broken_rules == []


@pytest.mark.parametrize("alone", ["TokenIssuer", "SignInClient"])
def test_half_a_sign_in_breaks_a_rule(sam_json: Path, alone: str) -> None:
    (broken,) = stack(sam_json, {alone: SIGN_IN[alone]}).broken_rules
    assert broken.startswith(f"{alone} needs a ")


def test_the_stage_serves_what_is_complete(any_stack: Stack) -> None:
    """It deploys a changed route at once, and an authorizer without its permission fails."""
    routes = [name for name in any_stack.resources if name.endswith("Route")]
    assert len(routes) == 3
    before = any_stack.created_before("WebsocketAPIStage")
    assert {*routes, "WebsocketConnect", "WebsocketMessage", "WebsocketDisconnect"} <= before
    if any_stack.conditions["HasTokenIssuer"]:
        before = any_stack.created_before("WebsocketConnectRoute")
        assert {"Authorizer", "AuthorizePermission", "Authorize", "AuthorizeRole"} <= before
