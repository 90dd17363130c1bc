"""Makes MiniStack 1.5.33's CloudFormation as strict as AWS's, and no stricter.

Each patch names the fault of MiniStack that it fixes.
The error messages are AWS's, as users have reported them.
"""

import logging
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ministack.core.responses import new_uuid
from ministack.services import cloudformation
from ministack.services.cloudformation import (
    changesets,
    engine,
    handlers,
    helpers,
    provisioners,
    stacks,
)

PSEUDO_PARAMETERS = {
    *("AWS::AccountId", "AWS::NotificationARNs", "AWS::NoValue", "AWS::Partition"),
    *("AWS::Region", "AWS::StackId", "AWS::StackName", "AWS::URLSuffix"),
}

NAMES = {  # of the resources whose name is unique in an account and region
    kind: f"{kind.rpartition('::')[2]}Name"
    for kind in (
        *("AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard", "AWS::DynamoDB::Table"),
        *("AWS::IAM::ManagedPolicy", "AWS::IAM::Role", "AWS::Lambda::Function"),
        *("AWS::Logs::LogGroup", "AWS::SNS::Topic", "AWS::SQS::Queue"),
    )
}
UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED")
EARLY = (
    "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To "
    "troubleshoot Early Validation errors, use the DescribeEvents API for detailed failure "
    "information."
)

logger = logging.getLogger("chalice-chat")


def apply() -> None:
    # It refused alarms over several metrics.
    provisioners._cw_metric_alarm_record = partial(
        alarm_record, provisioners._cw_metric_alarm_record
    )

    # It refused resource types that it did not know. It accepted circles, and references to
    # resources that a template or its conditions leave out.
    for module in (changesets, handlers):
        module.validate_template_support = partial(check_template, module.validate_template_support)

    # It gave two resources the same name, so that they became one.
    stacks._validation_errors = partial(with_taken_names, stacks._validation_errors)
    stacks._resolve_stack_outputs = partial(check_exports, stacks._resolve_stack_outputs)
    actions = handlers._ACTION_HANDLERS
    actions["CreateChangeSet"] = partial(validate_early, actions["CreateChangeSet"])

    # It saw no change where only a condition had changed.
    changesets._resolve_props_for_diff = partial(resolve, changesets._resolve_props_for_diff)

    # It updated stacks whose creation had failed, which can only be deleted.
    for action in ("CreateChangeSet", "UpdateStack"):
        actions[action] = partial(refuse_update, actions[action])


def check_template(
    original: Any, template: Any, conditions: dict[str, bool], params: Any = None
) -> None:
    """Raises ValueError if a name leads nowhere, or resources refer to each other in a circle.

    Without `params`, as in ValidateTemplate, conditions may hold or not. On AWS, a template with a
    transform is checked after CreateChangeSet has answered, and its change set fails. A type of
    AWS that is not emulated passes, and gets a handler that does nothing.
    """
    resources, outputs = template.get("Resources") or {}, template.get("Outputs") or {}
    for kind in {str(each.get("Type")) for each in resources.values()}:
        if kind.startswith("AWS::"):
            nothing = {"create": partial(create_nothing, kind), "delete": lambda *arguments: None}
            provisioners._RESOURCE_HANDLERS.setdefault(kind, nothing)
    original(template, conditions, params=params)
    if "Transform" in template:  # ValidateTemplate does not apply it
        return
    known = PSEUDO_PARAMETERS | set(template.get("Parameters") or {})
    refuse_unresolved(resources, outputs, known | resources.keys())
    if params is None:
        return
    there = present(resources, conditions)
    refuse_unresolved(there, present(outputs, conditions), known | there.keys())
    try:
        TopologicalSorter(
            {name: references(each) & there.keys() for name, each in there.items()}
        ).prepare()
    except CycleError as error:
        circle = ", ".join(sorted(set(error.args[1])))
        raise ValueError(f"Circular dependency between resources: [{circle}]") from None


def refuse_unresolved(resources: dict[str, Any], outputs: dict[str, Any], named: set[str]) -> None:
    for section, beginning, block in (
        (resources, "Template format error: ", "Resources"),
        (outputs, "", "Outputs"),
    ):
        missing = ", ".join(sorted(set().union(*map(references, section.values())) - named))
        if missing:
            raise ValueError(
                f"{beginning}Unresolved resource dependencies [{missing}] in the {block} block of "
                "the template"
            )


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


def with_taken_names(original: Any, resources: Any, ordered: Any, *context: Any) -> list[Any]:
    """The faults that CloudFormation finds before it begins, and the names that are taken.

    Names that depend on other resources pass.
    """
    faults: list[Any] = original(resources, ordered, *context)
    values, conditions, mappings, stack, stack_id, *_ = context
    own = cloudformation._stacks[stack]["_resources"]
    for resource in ordered:
        kind = resources[resource]["Type"]
        key = NAMES.get(kind, "")
        raw = (resources[resource].get("Properties") or {}).get(key)
        name = raw and stacks._static_property(
            raw, resources, values, conditions, mappings, stack, stack_id
        )
        had = own.get(resource, {}).get("Properties", {}).get(key)
        if isinstance(name, str) and name != had and is_taken(kind, key, name):
            reason = f"Resource of type '{kind}' with identifier '{name}' already exists."
            faults.append(
                (resource, kind, "NAME_CONFLICT_VALIDATION", f"/Resources/{resource}", reason)
            )
    return faults


def is_taken(kind: str, key: str, name: str) -> bool:
    """Whether a resource has the name: any in the account or, for some kinds, any in a stack."""
    keys, reason_not_found = changesets._IMPORT_LOOKUPS.get(kind, ((), None))
    if keys == (key,):
        return reason_not_found(name) is None
    return any(
        each["ResourceType"] == kind and each["Properties"].get(key) == name
        for stack in existing_stacks().values()
        for each in stack["_resources"].values()
    )


def existing_stacks() -> dict[str, Any]:
    return {
        name: stack
        for name, stack in cloudformation._stacks.items()
        if stack["StackStatus"] != "DELETE_COMPLETE"
    }


def validate_early(original: Any, parameters: Any) -> Any:
    """Fails a change set whose new names are taken, as AWS does since November 2025."""
    answer = original(parameters)
    _, made = changesets._find_change_set(
        helpers._p(parameters, "ChangeSetName"), helpers._p(parameters, "StackName")
    )
    if answer[0] != 200 or made["Status"] != "CREATE_COMPLETE":
        return answer
    template, values = made["_template"], made["_resolved_params"]
    conditions = engine._evaluate_conditions(template, values)
    stack = cloudformation._stacks[made["StackName"]]
    faults = stacks._validation_errors(
        template["Resources"],
        list(present(template["Resources"], conditions)),
        *(values, conditions, template.get("Mappings", {}), stack["StackName"], stack["StackId"]),
        {each["PhysicalResourceId"] for each in stack["_resources"].values()},
    )
    if faults:
        made |= {"Status": "FAILED", "ExecutionStatus": "UNAVAILABLE", "StatusReason": EARLY}
        stack["_operation_events"] = [
            stacks._operation_event(
                *(stack["StackId"], new_uuid(), "VALIDATION_ERROR", "CREATE_CHANGESET"),
                LogicalResourceId=resource,
                ResourceType=kind,
                ValidationFailureMode="FAIL",
                ValidationName=validation,
                ValidationStatus="FAILED",
                ValidationStatusReason=reason,
                ValidationPath=path,
            )
            for resource, kind, validation, path, reason in faults
        ]
    return answer


def resolve(original: Any, template: Any, values: Any, *names: str) -> dict[str, Any]:
    """The resources that exist with these values of the parameters, for a comparison."""
    resolved = original(template, values, *names).get("Resources", {})
    return {"Resources": present(resolved, engine._evaluate_conditions(template, values))}


def refuse_update(original: Any, parameters: Any) -> Any:
    """Refuses to update a stack that is being changed, or whose creation failed."""
    stack = handlers._resolve_stack(helpers._p(parameters, "StackName"))
    is_update = helpers._p(parameters, "ChangeSetType", "UPDATE") == "UPDATE"
    if stack and is_update and stack["StackStatus"] not in (*UPDATABLE, "DELETE_COMPLETE"):
        return helpers._error(
            "ValidationError",
            f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not be updated.",
        )
    return original(parameters)


def check_exports(original: Any, *arguments: Any) -> Any:
    """Raises ValueError if another stack has the same export, or imports one that changes."""
    outputs, exports = original(*arguments)
    stack_id = arguments[-1]
    for name, export in exports.items():
        other = cloudformation._exports.get(name, export)["StackId"]
        if other != stack_id:
            owner = other.split("/")[1]
            raise ValueError(f"Export with name {name} is already exported by stack {owner}")
    for name, export in list(cloudformation._exports.items()):
        if export["StackId"] != stack_id or export == exports.get(name):
            continue
        importers = [
            other
            for other, stack in existing_stacks().items()
            if name in handlers._imported_export_names(stack, other)
        ]
        if importers:
            change = "updated" if name in exports else "deleted"
            used = " and ".join(importers)
            raise ValueError(f"Export {name} cannot be {change} as it is in use by {used}")
        del cloudformation._exports[name]  # the new ones are added later
    return outputs, exports


def create_nothing(kind: str, name: str, properties: Any, stack: str) -> tuple[str, dict[str, Any]]:
    logger.warning("%s of stack %s does nothing here: %s is not emulated", name, stack, kind)
    return f"{stack}-{name}", {}


def alarm_record(original: Any, name: str, properties: dict[str, Any]) -> Any:
    """Turns an alarm over several metrics into one over a metric that has no values."""
    if "Metrics" in properties:
        logger.warning("The alarm %s will never fire: metric math is not emulated", name)
        properties = properties | {"Metrics": None, "Namespace": "none", "MetricName": "none"}
    return original(name, properties)
