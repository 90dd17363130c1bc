"""Adds the checks of other services that MiniStack 1.5.33's CloudFormation leaves out.

No linter can make them: it would have to know the other resources, or the account.
"""

import json
from functools import partial
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import apigateway, apigateway_v1, iam, lambda_svc
from ministack.services.cloudformation import provisioners

Properties = dict[str, Any]


def apply() -> None:
    for kind, check in {
        "AWS::ApiGateway::Stage": check_logs,
        "AWS::ApiGatewayV2::Stage": check_stage,
        "AWS::Lambda::EventInvokeConfig": check_destination,
        "AWS::Lambda::Function": check_role,
    }.items():
        handler = provisioners._RESOURCE_HANDLERS[kind]
        for action in ("create", "update"):
            handler[action] = partial(check_first, check, handler[action])


def check_first(check: Any, original: Any, *arguments: Any) -> Any:
    check([each for each in arguments if isinstance(each, dict)][-1])  # the new properties
    return original(*arguments)


def check_logs(properties: Properties) -> None:
    logs = properties.get("AccessLogSetting") or properties.get("AccessLogSettings")
    if logs and not (apigateway_v1._account_settings.get("settings") or {}).get(
        "cloudwatchRoleArn"
    ):
        raise ValueError(
            "CloudWatch Logs role ARN must be set in account settings to enable logging"
        )


def check_stage(properties: Properties) -> None:
    check_logs(properties)
    if properties.get("AutoDeploy") and properties.get("DeploymentId"):
        raise ValueError("Deployment ID cannot be set on this stage because AutoDeploy is enabled")
    routes = apigateway._routes.get(properties["ApiId"], {}).values()
    for key in properties.get("RouteSettings", {}).keys() - {each["routeKey"] for each in routes}:
        raise ValueError(f"Unable to find Route by key {key} within the provided RouteSettings")


def check_role(properties: Properties) -> None:
    role = iam._roles.get(properties["Role"].rpartition("/")[2], {})
    if "lambda.amazonaws.com" not in json.dumps(role.get("AssumeRolePolicyDocument")):
        raise ValueError("The role defined for the function cannot be assumed by Lambda.")


def check_destination(properties: Properties) -> None:
    failures = properties.get("DestinationConfig", {}).get("OnFailure", {})
    destination = failures.get("Destination", "")
    if ":sqs:" not in destination:
        return
    role = lambda_svc._functions[properties["FunctionName"]]["config"]["Role"]
    account = get_account_id()
    sending = iam_evaluator.EvalContext(
        *(role, "AssumedRole", account, "sqs:SendMessage", destination, get_region())
    )
    policies = iam_evaluator._gather_role_policies(role.rpartition("/")[2], account)
    if iam_evaluator.evaluate(sending, policies).decision != "Allow":
        raise ValueError(
            "The function's execution role does not have permissions to call SendMessage on "
            f"{destination}"
        )
