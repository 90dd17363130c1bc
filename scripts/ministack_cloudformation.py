"""Makes MiniStack's CloudFormation refuse what AWS's refuses; each patch names the fault it fixes.

The sentences are those of AWS, as users have reported them.
"""

from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ministack.services.cloudformation import changesets, engine, handlers

PSEUDO_PARAMETERS = {
    f"AWS::{name}"
    for name in (
        *("AccountId", "NotificationARNs", "NoValue", "Partition", "Region", "StackId"),
        *("StackName", "URLSuffix"),
    )
}


def apply() -> None:
    # It took references to resources that a template or its conditions leave out, and circles.
    for module in (changesets, handlers):
        module.validate_template_support = partial(
            check_references, module.validate_template_support
        )


def check_references(
    original: Any, template: Any, conditions: dict[str, bool], params: Any = None
) -> None:
    """Raises ValueError if a name leads nowhere, or resources refer to each other in a circle.

    Without `params`, as in ValidateTemplate, conditions may hold or not. On AWS, a template with a
    transform is checked after CreateChangeSet has answered, and its change set fails.
    """
    original(template, conditions, params=params)
    if "Transform" in template:  # ValidateTemplate does not apply it
        return
    resources, outputs = template["Resources"], template.get("Outputs") or {}
    named = PSEUDO_PARAMETERS | set(template.get("Parameters") or {}) | set(resources)
    check_names(
        "Template format error: {} in the Resources block of the template", resources, named
    )
    check_names("{} in the Outputs block of the template", outputs, named)
    if params is None:
        return
    there = present(resources, conditions)
    named -= resources.keys() - there.keys()
    check_names("Template format error: {} in the Resources block of the template", there, named)
    check_names("{} in the Outputs block of the template", present(outputs, conditions), named)
    try:
        TopologicalSorter(
            {name: references(each) & there.keys() for name, each in there.items()}
        ).prepare()
    except CycleError as error:
        circle = ", ".join(sorted(set(error.args[1])))
        raise ValueError(f"Circular dependency between resources: [{circle}]") from None


def check_names(message: str, section: dict[str, Any], named: set[str]) -> None:
    missing = ", ".join(sorted(set().union(*map(references, section.values())) - named))
    if missing:
        raise ValueError(message.format(f"Unresolved resource dependencies [{missing}]"))


def references(definition: dict[str, Any]) -> set[str]:
    """The names that a resource or an output refers to."""
    after = definition.get("DependsOn", [])
    names = {name for name, _ in engine._intrinsic_references(definition)}
    return names | ({after} if isinstance(after, str) else set(after))


def present(section: dict[str, Any], conditions: dict[str, bool]) -> dict[str, Any]:
    """The resources or outputs whose condition holds, without the branches that are not taken."""
    return {
        name: taken(each, conditions)
        for name, each in section.items()
        if conditions.get(each.get("Condition"), True)
    }


def taken(node: Any, conditions: dict[str, bool]) -> Any:
    if isinstance(node, list):
        return [taken(each, conditions) for each in node]
    if not isinstance(node, dict):
        return node
    if "Fn::If" in node:
        condition, if_true, if_false = node["Fn::If"]
        if condition not in conditions:
            raise ValueError(
                f"Template error: unresolved condition dependency {condition} in Fn::If"
            )
        return taken(if_true if conditions[condition] else if_false, conditions)
    return {key: taken(value, conditions) for key, value in node.items()}
