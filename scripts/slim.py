"""Makes a deployment package smaller, and quicker to import.

Most of Chalice's package is botocore's data on services that the chat does not call. Its Python
files would be compiled at every cold start, since Lambda's file system is read-only. Without that
data and with compiled files, the package is a sixth as large, and `import app` takes a third of
the CPU.
"""

from __future__ import annotations

import compileall
import py_compile
import tempfile
import zipfile
from pathlib import Path

# Services that the functions call; botocore's data on all others is left out.
SERVICES = ("apigatewaymanagementapi", "dynamodb", "lambda")
LAMBDA_TASK_ROOT = "/var/task"  # the path of the code in tracebacks


def slim(archive: Path) -> None:
    """Rewrites a deployment package; the same package gives the same bytes."""
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory)
        with zipfile.ZipFile(archive) as package:
            package.extractall(files, [name for name in package.namelist() if is_needed(name)])
        compileall.compile_dir(
            files,
            ddir=LAMBDA_TASK_ROOT,
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        with zipfile.ZipFile(archive, "w") as package:
            for file in sorted(files.rglob("*")):
                if file.is_file():
                    add(package, str(file.relative_to(files)), file.read_bytes())


def is_needed(name: str) -> bool:
    package, *parts = name.split("/")
    if "__pycache__" in parts:  # from the packaging machine; `slim` compiles again
        return False
    if package in ("boto3", "botocore") and parts[0] == "data" and len(parts) > 2:
        return parts[1] in SERVICES
    return True


def add(package: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds a file without a timestamp, so that unchanged code is not deployed again."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    package.writestr(entry, content, zipfile.ZIP_DEFLATED)
