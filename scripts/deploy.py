"""`make deploy` and `make monitor`: AWS's own commands, and the reason if one of them fails."""

import shlex
import subprocess
import sys
from contextlib import suppress

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

from emulator.emulator import BIN, ROOT, events, explained
from scripts import Failure
from scripts.address import Parser, run

# CloudFormation updates no stack in one of these states.
WAYS_OUT = {
    "ROLLBACK_COMPLETE": "delete-stack",  # its creation failed
    "ROLLBACK_FAILED": "delete-stack",
    "DELETE_FAILED": "delete-stack",
    "UPDATE_ROLLBACK_FAILED": "continue-update-rollback",
}


def require_bucket(bucket: str) -> None:
    """Raises an error if no region is set, or the bucket does not exist or is in another region."""
    here = boto3.Session().region_name
    if not here:
        raise NoRegionError
    try:
        found = boto3.client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            return  # the upload says more
        raise Failure(
            f"There is no bucket {bucket}. Create it with 'aws s3 mb s3://{bucket}', then retry"
        ) from None
    place = {None: "us-east-1", "EU": "eu-west-1"}.get(found, found)
    if place != here:
        raise Failure(
            f"The bucket {bucket} is in {place}, and you deploy to {here}: take a bucket there, or "
            f"set AWS_DEFAULT_REGION={place}"
        )


def way_out(stack: str) -> str | None:
    """The advice for a stack that cannot be updated; None if it can, or does not exist."""
    newest = next(events(boto3.client("cloudformation"), stack), {})
    status = newest.get("ResourceStatus")
    if newest.get("PhysicalResourceId") != newest.get("StackId") or status not in WAYS_OUT:
        return None
    command = f"aws cloudformation {WAYS_OUT[status]} --stack-name {stack}"
    return f"The stack {stack} is {status}. Before you deploy again: {command}"


def package(bucket: str) -> str:
    """Packages the app and uploads its code; returns the path of the template to deploy."""
    if subprocess.call([sys.executable, "-m", "scripts.package", "out"], cwd=ROOT) != 0:
        raise Failure("The app could not be packaged.")
    template = "out/template.yml"
    aws(
        *("package", "--template-file", "out/sam.json", "--s3-bucket", bucket),
        *("--output-template-file", template),
    )
    return template


def require_parameters(template: str, parameters: list[str]) -> None:
    """Raises a Failure for a parameter that the template lacks: the AWS CLI would ignore it."""
    with suppress(BotoCoreError, ClientError):  # `aws cloudformation deploy` says more
        answer = boto3.client("cloudformation").validate_template(
            TemplateBody=(ROOT / template).read_text()
        )
        known = sorted(each["ParameterKey"] for each in answer["Parameters"])
        for name in (parameter.partition("=")[0] for parameter in parameters):
            if name not in known:
                raise Failure(f"There is no parameter {name}; there are: {', '.join(known)}.")


def deploy(stack: str, template: str, parameters: list[str]) -> None:
    """Creates or updates a stack; a Failure has the first reason that CloudFormation gives."""
    overrides = ["--parameter-overrides", *parameters] if parameters else []
    try:
        with explained(boto3.client("cloudformation"), stack):
            aws(
                *("deploy", "--template-file", template, "--stack-name", stack),
                *("--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset", *overrides),
            )
    except Failure as failure:
        if "AWS::EarlyValidation" in str(failure) and (refused := validation_error(stack)):
            raise Failure(refused) from None
        raise Failure("\n".join(filter(None, [str(failure), way_out(stack)]))) from None


def validation_error(stack: str) -> str | None:
    """Why CloudFormation has refused a change set; the change set itself names no resource."""
    with suppress(BotoCoreError, ClientError):
        found = boto3.client("cloudformation").describe_events(
            StackName=stack, Filters={"FailedEvents": True}
        )
        for event in found["OperationEvents"]:  # newest first
            if reason := event.get("ValidationStatusReason"):
                return f"{event['LogicalResourceId']}: {reason}"
    return None


def aws(*command: str) -> None:
    """Prints and runs a command of `aws cloudformation`; a Failure has its error output."""
    print(shlex.join(("aws", "cloudformation", *command)), flush=True)
    run = subprocess.run(
        [BIN / "aws", "cloudformation", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    if run.returncode != 0:
        raise Failure(run.stderr.strip())


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--template", help="deploy this one, not the app")
    parser.add_argument("--bucket", default="", help="where the app's package goes")
    parser.add_argument("parameters", nargs="*", help="Name=value")
    arguments = parser.parse_args()
    if not arguments.template:
        require_bucket(arguments.bucket)
    if stuck := way_out(arguments.stack):
        raise Failure(stuck)
    template = arguments.template or package(arguments.bucket)
    require_parameters(template, arguments.parameters)
    deploy(arguments.stack, template, arguments.parameters)


if __name__ == "__main__":
    run(main)
