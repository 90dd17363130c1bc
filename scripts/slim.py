"""Makes deployment packages smaller, and quicker to import.

Most of Chalice's package is botocore's data on services that the chat does not call with boto3.
Without that data, the package is a seventh as large. Its Python files are compiled here: Lambda's
file system is read-only, so they would be compiled at every cold start.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

# Services that the functions call with boto3; botocore's data on all others is left out.
SERVICES = ("apigatewaymanagementapi", "dynamodb")
PREFIXES = ("execute-api", "dynamodb")  # of their endpoints: `endpointPrefix` in the data
ENDPOINTS = Path("botocore", "data", "endpoints.json")
FOR_TOKENS = ("jwt", "pyjwt", "cryptography", "cffi", "_cffi_backend", "pycparser")
PACKAGE, AUTHORIZERS = PACKAGES = ("deployment.zip", "authorizer.zip")
LAMBDA_TASK_ROOT = "/var/task"  # the path of the code in tracebacks


def extract_libraries(package: Path, directory: Path) -> None:
    """Writes the libraries of Chalice's package to an archive for each of `PACKAGES`.

    Only the authorizer gets the library for tokens.
    """
    shared, with_tokens = (directory / name for name in PACKAGES)
    rewrite(package, "libraries", [shared])
    shutil.copyfile(shared, with_tokens)
    rewrite(package, "for tokens", [with_tokens])


def slim(out: Path, libraries: Path) -> None:
    """Rewrites the package and the template that `chalice package` wrote to a directory.

    `libraries` is the directory of `extract_libraries`.
    """
    original = (out / PACKAGE).rename(out / "original.zip")
    packages = [shutil.copyfile(libraries / name, out / name) for name in PACKAGES]
    rewrite(original, "code", packages)
    original.unlink()
    template = json.loads((out / "sam.json").read_text())
    if authorizer := template["Resources"].get("Authorize"):
        authorizer["Properties"]["CodeUri"] = f"./{AUTHORIZERS}"
    (out / "sam.json").write_text(json.dumps(template, indent=2))


def rewrite(package: Path, part: str, archives: Sequence[Path]) -> None:
    """Adds one part of a package (see `part_of`) to archives, with its files compiled.

    The same files give the same bytes, so that unchanged code is not deployed again: entries have
    no timestamps, and a new process compiles the files, since the modules that a process has loaded
    affect the result.
    """
    with zipfile.ZipFile(package) as source, tempfile.TemporaryDirectory() as directory:
        files = Path(directory)
        source.extractall(files, [name for name in source.namelist() if part_of(name) == part])
        if (files / ENDPOINTS).exists():
            shorten(files / ENDPOINTS)
        # `-I` ignores the caller's PYTHON* variables. Files with errors stay uncompiled.
        compiler = [sys.executable, "-I", "-m", "compileall", "-qq", "-d", LAMBDA_TASK_ROOT]
        subprocess.run([*compiler, "--invalidation-mode", "unchecked-hash", files])
        for archive in archives:
            with zipfile.ZipFile(archive, "a") as target:
                for file in sorted(files.rglob("*")):
                    if file.is_file():
                        entry = zipfile.ZipInfo(str(file.relative_to(files)))
                        entry.external_attr = 0o644 << 16
                        target.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def shorten(endpoints: Path) -> None:
    """Leaves only the endpoints of `SERVICES`; parsing the others takes 4% of an import."""
    content = json.loads(endpoints.read_text())
    for partition in content["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in PREFIXES if name in services}
    endpoints.write_text(json.dumps(content))


def part_of(name: str) -> str:
    """The part of the package that a file belongs to; "" if the file is left out."""
    package, *parts = name.split("/")
    if "__pycache__" in parts:  # from the packaging machine; `rewrite` makes new ones
        return ""
    if package in ("boto3", "botocore") and parts[0] == "data" and len(parts) > 2:
        return "libraries" if parts[1] in SERVICES else ""
    if name.startswith(("app.py", "chalicelib/")):
        return "code"
    return "for tokens" if name.lower().startswith(FOR_TOKENS) else "libraries"
