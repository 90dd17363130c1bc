"""What the emulator makes of a function's output, however late it is read."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from pathlib import Path

from scripts.emulator import EMULATOR_PYTHON, ROOT, aws_environment

FUNCTION = """
import os, sys

def handler(event, context):
    print(event, end="")
    if event == "dies":
        sys.stdout.flush()
        os._exit(1)
"""

INVOKE = """
import json, pathlib, queue, sys, time
from scripts import ministack_patches
from ministack.core import lambda_runtime

ministack_patches.apply(sys.stdout)
put = queue.Queue.put
queue.Queue.put = lambda *arguments: (time.sleep(0.1), put(*arguments))  # a reader that is slow
arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
config = {"FunctionArn": arn, "Handler": "app.handler", "Role": "arn:r", "Runtime": "python3.11"}
worker = lambda_runtime.Worker("f", config, pathlib.Path(sys.argv[1]).read_bytes())
printed = [worker.invoke(event, "id")["log"] for event in json.loads(sys.argv[2])]
worker.kill()
print(json.dumps(printed))
"""


def test_what_a_function_prints_is_logged_with_its_own_invocation(tmp_path: Path) -> None:
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as package:
        package.writestr("app.py", FUNCTION)
    (tmp_path / "code.zip").write_bytes(code.getvalue())
    prints = ["a line\n", "", "unfinished", "two\nlines\n", "\n", "dies", "after that\n"]
    invoked = subprocess.run(
        [EMULATOR_PYTHON, "-c", INVOKE, tmp_path / "code.zip", json.dumps(prints)],
        cwd=ROOT,
        env=aws_environment(1),
        check=True,
        capture_output=True,
        text=True,
    )
    logs = json.loads(invoked.stdout.splitlines()[-1])
    assert logs == ["a line", "", "unfinished", "two\nlines", "", "dies", "after that"]
