"""Makes a package smaller, and quick to import.

Most of what Chalice packages is botocore's descriptions of services that the chat does not
call; and its Python files would be compiled anew at every cold start, since Lambda's file
system is read-only. Without the former and with the latter compiled, the package is a sixth
as large, and `import app` takes a third of the CPU.
"""

from __future__ import annotations

import compileall
import py_compile
import tempfile
import zipfile
from pathlib import Path

# What the functions make clients of; botocore's data on no other service is shipped.
SERVICES = ("apigatewaymanagementapi", "dynamodb", "lambda")
LAMBDA_TASK_ROOT = "/var/task"  # where tracebacks will say that the code is


def slim(archive: Path) -> None:
    """Rewrites a deployment package; the same package in gives the same bytes out."""
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
    if "__pycache__" in parts:  # of the machine that packages; it is made anew
        return False
    if package in ("boto3", "botocore") and parts[0] == "data" and len(parts) > 2:
        return parts[1] in SERVICES
    return True


def add(package: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Without the time, so that what has not changed is not deployed again."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    package.writestr(entry, content, zipfile.ZIP_DEFLATED)
