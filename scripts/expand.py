"""`python -m scripts.expand .local/check`: the template as CloudFormation sees it, for cfn-lint.

Writes `expanded.json` beside the packaged `sam.json`.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from emulator.emulator import only
from scripts.package import without_account

NOT_LINTED = (
    "Not linted: the age of the Python that packages (W2531), and whatever the schemas leave open: "
    "RestAPI's Body, the stage's RouteSettings and the formats of the access logs."
)


def expand(sam_json: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
    """A packaged template, expanded for these parameters by SAM's own translator.

    CloudFormation runs the same translator, as the transform AWS::Serverless-2016-10-31. Conditions
    and functions such as `Fn::If` stay as they are. The address of the code is made up: only
    `aws cloudformation package` uploads code. Needs no account, and sends no request.
    """
    template = json.loads(sam_json.read_text())
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "s3://bucket/code.zip"
    with only(without_account()):
        translator = Translator({}, Parser(), boto_session=boto3.Session())
        expanded: dict[str, Any] = translator.translate(template, dict(parameters))
    return expanded


def main() -> None:
    directory = Path(sys.argv[1])
    expanded = expand(directory / "sam.json", {})
    (directory / "expanded.json").write_text(json.dumps(expanded, indent=2))
    print(NOT_LINTED)


if __name__ == "__main__":
    main()
